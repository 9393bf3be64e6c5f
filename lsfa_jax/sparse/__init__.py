"""The linear side: TF-IDF, label tree, SVM."""
