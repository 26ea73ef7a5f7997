"""Makes tables, figures and one page of finished workdirs.

    python -m launch.report --workdir=runs/sst
    python -m launch.report --workdir=runs/sst,runs/imdb --out=runs/report

Flags:
  --workdir=DIR[,DIR]      workdirs of launch.train or launch.ablate; what launch.evaluate measured there is shown too
  --out=DIR                where to (default: report/ in the first workdir)
  --group                  shows workdirs of different configurations beside each other, with rows and curves of their
                           own; without it, workdirs that hold the same run are refused, and those of one data set whose
                           configurations differ in more than techniques, seeds and swept values
  --texts=N                texts under the heat maps of each workdir (default 60)
  --techniques=NAME[,NAME] columns of the heat maps (default vanilla, attention_at, attention_iat)

Writes index.html, one page that needs no network; tables/ as CSV, Markdown, LaTeX (booktabs) and HTML; figures/ as PNG
and SVG. Each technique is shown at the setting that is best on dev. Reads what training and launch.evaluate wrote:
nothing is trained or measured. Texts, and the tables beyond prediction, need what
`python -m launch.evaluate --workdir=DIR --suite=all` writes. A text of SST takes about 5 kB of the
page for three techniques.

Exit codes: 0 done, 1 a file could not be written, 2 the results cannot be read or compared.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from flax_attnat.allowed import CONTROLS, TECHNIQUES
from flax_attnat.reporting.report import Options, write_report
from launch import cli
from launch.display import show

FLAGS = {
    "workdir": "workdirs of launch.train or launch.ablate",
    "out": "where to",
    "texts": "under the heat maps",
    "techniques": "columns of the heat maps",
}


def main(argv: Sequence[str]) -> int:
    """Writes what the command line says; returns the exit code."""
    values = cli.flag_values(argv, FLAGS, switches={"group": "configurations beside each other"}, config=False)
    workdirs = [cli.open_workdir(name.strip()) for name in (values.workdir or "").split(",")]
    if len({str(workdir.resolve()) for workdir in workdirs}) < len(workdirs):
        raise cli.UsageError(f"--workdir={values.workdir} names a workdir twice: give each once.")
    text = values.texts or "60"
    if not text.isdecimal():
        raise cli.UsageError(f"--texts must be a whole number such as 60, or 0 for no heat maps; got {text!r}.")
    names = [name.strip() for name in (values.techniques or "").split(",") if name.strip()]
    for name in names:
        if name not in TECHNIQUES + CONTROLS:
            raise cli.UsageError(f"--techniques names some of {', '.join(TECHNIQUES + CONTROLS)}; got {name!r}.")
    console = cli.console()
    out = cli.open_workdir(values.out, "out") if values.out else workdirs[0] / "report"
    options = Options(group=values.group, examples=int(text), techniques=tuple(names))
    page = write_report(workdirs, out, options, lambda sentence: show(console, f"note: {sentence}"))
    show(console, f"report: {page if '://' in str(page) else Path(page).resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(sys.modules[__name__], main))
