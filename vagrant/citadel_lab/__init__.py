"""The multi-node test lab: what ``bin/lab`` runs. Standard library only, so that a clone is all it needs."""
