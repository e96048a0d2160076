"""Where the lab's files are. All that it makes on the host is in two git-ignored folders, STATE and MACHINES."""

from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
ROOT = HOME.parent
TOPOLOGY = HOME / "lab.json"
PROVISION = HOME / "provision"

STATE = HOME / ".lab"
PAYLOAD = STATE / "payload"
IMAGE = STATE / "image"
KEY = STATE / "ssh" / "id_ed25519"
VAGRANT_LOG = STATE / "vagrant.log"

MACHINES = HOME / ".vagrant" / "machines"
