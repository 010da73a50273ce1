const names = ['policy', 'group', 'preference'];
const choices = names.map(name => document.getElementById('by-' + name));
const articles = [...document.querySelectorAll('article')];
const count = document.getElementById('shown');
const show = () => {
  let shown = 0;
  for (const article of articles) {
    article.hidden = choices.some((choice, i) => choice.value && choice.value !== article.dataset[names[i]]);
    shown += !article.hidden;
  }
  count.textContent = shown + ' of ' + articles.length + ' items shown';
};
for (const choice of choices) choice.addEventListener('change', show);
document.getElementById('filters').hidden = false;
show();
