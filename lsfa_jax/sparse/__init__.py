"""Linear models on TF-IDF features: a label tree and one-versus-rest support vector machines."""
