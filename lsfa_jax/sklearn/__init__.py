"""LSFA and FeatureAugmenter in scikit-learn's manner."""
