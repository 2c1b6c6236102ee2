"""From a champion to a place where it answers, and back: images, registries, the ledger of releases."""
