// One call: what is written here directly would be isolated to the main actor.

import Glibc

exit(Role.takeUp())
