"""Texts of several kinds on which ways to compute a model are compared. Whoever changes one makes the references anew.

Where the model itself is torn between two tokens, which of them comes first is chance for everybody who rounds,
llama.cpp as well. So texts that are easy to go on with (the rhyme, the table) agree more often than such as the essay
and the letter; a corpus of hard ones alone stays just below 0.97 with the same divergence. Here are both kinds.
In the chat, "<|im_start|>" and "<|im_end|>" are control tokens: turns as the template of SmolLM2 writes them.
"""

from __future__ import annotations

PROSE = """\
The lighthouse keeper's daughter had never seen a city. Every evening she climbed the ninety-one steps, trimmed the \
wick, and watched the ships go by toward the harbour on the mainland. In winter, when the storms came, the mail boat \
stayed away for weeks, and she read the same three books until she knew them by heart."""

CHAT = """\
<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
<|im_start|>user
Name the planets of the solar system in order.<|im_end|>
<|im_start|>assistant
The planets in order from closest to the sun are: Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus and Neptune.\
<|im_end|>
<|im_start|>user
Which one is the largest?<|im_end|>
<|im_start|>assistant
The largest planet in the solar system is Jupiter.<|im_end|>
"""

CODE = '''\
def fibonacci(n: int) -> list[int]:
    """Return the first n Fibonacci numbers."""
    numbers = [0, 1]
    while len(numbers) < n:
        numbers.append(numbers[-1] + numbers[-2])
    return numbers[:n]


if __name__ == "__main__":
    print(fibonacci(10))
'''

FIGURES = """\
1 × 7 = 7
2 × 7 = 14
3 × 7 = 21
4 × 7 = 28
5 × 7 = 35
6 × 7 = 42
7 × 7 = 49
8 × 7 = 56
9 × 7 = 63
Grüße: α, β, γ, δ, ε. Привет! 你好。 café → 100 %
"""

LIST = """\
How to make tea:
1. Fill the kettle with fresh water and bring it to a boil.
2. Put one teaspoon of tea leaves for each cup into the pot.
3. Pour the boiling water over the leaves and wait for four minutes.
4. Strain the tea into the cups and add milk or sugar to taste."""

# A nursery rhyme from the eighteenth century.
RHYME = """\
This is the house that Jack built.

This is the malt
That lay in the house that Jack built.

This is the rat,
That ate the malt
That lay in the house that Jack built.

This is the cat,
That killed the rat,
That ate the malt
That lay in the house that Jack built.
"""

RECIPE = """\
<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
<|im_start|>user
How do I bake a simple loaf of bread?<|im_end|>
<|im_start|>assistant
To bake a simple loaf of bread, mix four cups of flour with two teaspoons of salt and one packet of yeast. Add one and \
a half cups of warm water and stir until a dough forms. Knead the dough for ten minutes, cover it with a towel, and \
let it rise for one hour in a warm place. Shape it into a loaf, put it into a greased pan, and let it rise again for \
thirty minutes. Bake it at 220 degrees Celsius for about thirty-five minutes, until the crust is golden brown.<|im_end|>
<|im_start|>user
Can I use whole wheat flour?<|im_end|>
<|im_start|>assistant
Yes, you can use whole wheat flour, but the bread will be denser. You may want to add a little more water.<|im_end|>
"""

ESSAY = """\
Most people assume that maps describe the land, but every map is also an argument about what matters. A sailor's chart \
leaves the mountains blank and counts the rocks beneath the water; a tax collector's plan ignores both and draws the \
hedges between one farmer's barley and the next. When two neighbours quarrel over a ditch, neither of them consults \
the sailor."""

LETTER = """\
Dear Margaret, the parcel with the seeds arrived on Thursday, only slightly crushed, and I have already planted the \
beans behind the shed where the nettles used to be. Your brother telephoned twice about the piano. He insists that it \
will not go through the door, although it came in that way, and I have given up explaining. Please bring the green \
blanket when you come, and do not worry about the dog."""

TEXTS = {
    "prose": PROSE,
    "chat": CHAT,
    "code": CODE,
    "figures": FIGURES,
    "rhyme": RHYME,
    "list": LIST,
    "essay": ESSAY,
    "letter": LETTER,
    "recipe": RECIPE,
}
