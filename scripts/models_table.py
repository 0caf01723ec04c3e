"""docs/models.md from the family tests' own results.

usage: pytest tests/parity/families/test_families.py -k prefill --junitxml=R; models_table.py R > docs/models.md
"""

import json
import sys
import xml.etree.ElementTree as ET

HEAD = """# Models

Made by `scripts/models_table.py` from the results of `tests/parity/families/test_families.py`: a tiny random model of each
configuration, saved by mlx-lm, whose logits are compared with mlx-lm's in fp32. The figure is the root mean square error in units
of the logits' spread (mixtures that choose experts: of the median row).

"""


def main():
    cells, paths, formats = {}, [], []
    for case in ET.parse(sys.argv[1]).getroot().iter("testcase"):
        found = [p.get("value") for p in case.iter("property") if p.get("name") == "result"]
        if not found:
            continue
        result = json.loads(found[0])
        failed = case.find("failure") is not None
        if result["format"] not in formats:
            formats.append(result["format"])
        for path, error in result["errors"].items():
            if path not in paths:
                paths.append(path)
            cells[result["family"], result["format"], path] = "failed" if failed else f"{error:.1e}"
    if not cells:
        sys.exit("no results in " + sys.argv[1])
    print(HEAD + "| configuration | format | " + " | ".join(paths) + " |")
    print("|---|---|" + "---|" * len(paths))
    for family in dict.fromkeys(key[0] for key in cells):
        for form in formats:
            row = [cells.get((family, form, path), "not tested") for path in paths]
            print(f"| {family} | {form} | " + " | ".join(row) + " |")


main()
