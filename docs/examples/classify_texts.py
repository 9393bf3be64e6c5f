"""Texts to labels: trains LSFA on generated help-desk messages, predicts labels, saves and loads the model.

    python docs/examples/classify_texts.py

Takes about a minute on a laptop. As in any inbox, a few labels are frequent and the others rare.
"""

import random
import tempfile

from lsfa_jax import LSFA

TOPICS = {
    "printer": "printer toner paper jam tray cartridge scanner duplex",
    "network": "network wifi cable router slow dns vpn offline",
    "account": "account password locked login reset expired username",
    "email": "email inbox attachment spam calendar mailbox signature",
    "laptop": "laptop battery charger keyboard screen fan docking",
    "licence": "licence expired renewal seats vendor activation key",
    "projector": "projector lamp hdmi meeting room beamer focus",
}
# Relative frequencies of the topics: the last ones occur in a few messages only.
SHARES = [30, 25, 20, 15, 10, 3, 2]
FILLER = "please help since yesterday again urgent thanks the office my our cannot work today colleague"


def messages(count: int, seed: int) -> tuple[list[str], list[set[str]]]:
    """Draws messages about one or two topics each, and their topics."""
    draw = random.Random(seed)
    texts, labels = [], []
    for _ in range(count):
        topics = set(draw.choices(list(TOPICS), SHARES, k=draw.choice([1, 1, 2])))
        about = [draw.choice(TOPICS[topic].split()) for topic in sorted(topics) for _ in range(4)]
        words = about + draw.choices(FILLER.split(), k=8)
        draw.shuffle(words)
        texts.append(" ".join(words))
        labels.append(topics)
    return texts, labels


def main() -> None:
    """Trains, scores, predicts, saves and loads."""
    texts, labels = messages(400, seed=0)
    classifier = LSFA(epochs=10, max_words=20, hidden_size=24, feature_size=24, learning_rate=0.01)
    classifier.fit(texts, labels)

    new_texts, new_labels = messages(200, seed=1)
    print(f"labels: {', '.join(classifier.classes_)}")
    print(f"nDCG@5 on {len(new_texts)} new messages: {classifier.score(new_texts, new_labels):.3f}")

    example = ["the beamer has no hdmi and its lamp is dark", "my password expired and the vpn is offline"]
    for text, predicted in zip(example, classifier.predict(example), strict=True):
        print(f"{text!r}: {', '.join(predicted)}")

    with tempfile.TemporaryDirectory() as folder:
        classifier.save(folder)
        print(f"the same after loading: {LSFA.load(folder).predict(example) == classifier.predict(example)}")


if __name__ == "__main__":
    main()
