"""From corpora as they are published, or recordings of one's own, to manifests."""
