"""`python -m gradlab.catalogue [FILE.md...]`: write catalogue.json, and the table in the files."""

import sys
from pathlib import Path

from gradlab.catalogue.made import write, write_table

write()
for name in sys.argv[1:]:
    write_table(Path(name))
