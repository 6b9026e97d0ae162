"""PRMs that other people made, and this project's own, as scorers of step texts.

`load.load_step_scorer` reads a model folder; `items` says what a scorer takes and gives; `score_file`
does it for a JSONL file (`airls-ray score`).
"""
