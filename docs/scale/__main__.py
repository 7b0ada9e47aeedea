"""`python -m docs.scale CONNECTIONS` prints one fleet."""

import sys

from docs.scale.fleet import fleet

if len(sys.argv) != 2 or not sys.argv[1].isdecimal() or int(sys.argv[1]) == 0:
    sys.exit("Usage: python -m docs.scale CONNECTIONS")
for name, value in vars(fleet(int(sys.argv[1]))).items():
    print(f"{name:16} {value:,.3g}")
