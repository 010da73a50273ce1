"""What turns `docs/` into a site beyond what Sphinx does: references written from the code, and equations as MathML."""
