"""One line, but about another thing than the fault."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny import ALL, last, run, tiny_project, verdict

MASKS = "artifacts/refined/tiny/0/row50-wanda-swaps"
CASES = {  # command: (what is wrong with it, what the line must not say)
    ("prunelib", "apply", "--model", "nowhere", "--masks", MASKS, "--to", "to"): ("no such folder", "its model is"),
    ("stages/download.py", "--model", "tiny", "--text", "ours"): ("one of them at a time", ""),
    ("stages/evaluate.py", "--model", "tiny", "--pattern", "row50"): ("the other names of the cell are missing", "no such file"),
    ("stages/report.py",): ("params.yaml is empty", "instance of Params"),
}
faults = []
with tiny_project() as project:
    status, said = run(project, *ALL)
    assert status == 0, said
    for words, (wrong, misleading) in CASES.items():
        if words == ("stages/report.py",):
            (project.folder / "params.yaml").write_text("")
        status, said = run(project, list(words))
        faults.append(status != 2 or bool(misleading) and misleading in said)
        print(f"{' '.join(words)[:60]}\n    wrong: {wrong}\n    says:  exit {status}, {last(said) or 'nothing'}")
verdict(any(faults), "exit 2 and a line about what is wrong")
