"""Language models behind a server that speaks OpenAI's protocol (floor 3): the judge, and a teacher."""
