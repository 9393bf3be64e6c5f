"""Search for settings that suit a corpus, by Optuna."""
