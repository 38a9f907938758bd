"""throttle.py FILE: copies standard input to standard output, some 640 kB a second until FILE exists, then at once."""

import os
import sys
import time

while piece := os.read(0, 65_536):
    view = memoryview(piece)
    while view:
        view = view[os.write(1, view):]
    if not os.path.exists(sys.argv[1]):
        time.sleep(0.1)
