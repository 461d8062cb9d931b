"""Views for notebooks: they show what they are given, know nothing of models or comparisons, and ask no other machine for anything."""
