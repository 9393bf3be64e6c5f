"""LSFA: long-tailed multi-label text classification with label-specific feature augmentation (Xu et al., AAAI 2023)."""
