"""Prompts of words: what opens them, and how many words make so many tokens."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from pacemark.scenario import Workload as Workload

# Everyday English words. Tokenizers differ in how they cut them, which is why the ratio is learned.
_WORDS = tuple(
    """
    able about above across act add after again age air all almost alone along also always among and animal another
    answer any appear apple area arm around arrive ask autumn away baby back bad ball bank base basket bear beat
    beautiful become bed before began behind believe bell best better between beyond big bird black blue board boat
    body book born both bottom bowl box branch bread break bridge bright bring broad brother brown build burn bus busy
    buy cake call calm came camp can car card care carry case castle cat catch cause centre certain chair chance
    change check child choose church circle city class clean clear climb clock close cloud coast coat cold colour come
    common complete cook cool copper corner correct cost could count country course cover cow cross crowd cry cup cut
    dance danger dark daughter day deal dear deep depend desert did differ dinner direct discover dish distant divide
    doctor dog door double doubt down draw dream dress drink drive drop dry dust each early earth east easy eat edge
    effort egg eight either else empty end energy enjoy enough enter equal even evening ever every exact example
    except expect explain eye face fact fair fall family famous far farm fast father favour fear feel feet fence few
    field fifteen fight figure fill final find fine finger finish fire first fish five flat floor flow flower fly
    follow food foot force forest forget form forward found four free fresh friend from front fruit full fun game
    garden gate gather gave general gentle get girl give glad glass gold good grand grass gray great green ground
    group grow guess half hall hand happen happy harbour hard harvest has hat have head hear heart heat heavy height
    help here high hill history hold hole home hope horse hot hour house how huge human hundred hunt hurry ice idea
    inch inside into iron island join journey joy jump just keep kettle key kind king kitchen knee knew know ladder
    lake lamp land language large last late laugh law lay lead leaf learn least leave left leg lemon lend length less
    letter level library life lift light like line lion list listen little live local long look lose lot loud love low
    lunch machine main make man many map mark market master matter may meadow mean measure meat meet melody member
    mend metal method middle might mile milk mill mind minute mirror miss mix moment money month moon more morning
    most mother mountain mouth move much music must name narrow nation nature near neck need never new next night nine
    noise none noon north nose note nothing notice now number object ocean off offer office often oil old once one
    only open orange order other our out over own page paint pair paper parent park part party pass past path pattern
    pay peace pencil people pepper perhaps period person picture piece pilot place plain plan plane planet plant play
    please plenty pocket poem point poor port possible pound power practice prepare press pretty price print prize
    problem produce proper protect proud pull push put quarter queen question quick quiet quite race radio rain raise
    ran reach read ready real reason record red region remain remember repeat reply report rest result return rich
    ride right ring rise river road rock roll roof room root rope rose round row rule run safe said sail salt same
    sand save say school science sea season seat second secret section see seed seem sell send sense sentence separate
    serve set settle seven several shade shape share sharp she sheep ship shirt shoe shop short should shoulder shout
    show side sign silver simple since sing sister sit six size skill sky sleep slow small smell smile smoke snow soft
    soil soldier some son song soon sort sound south space speak special speech speed spell spend spoke spot spread
    spring square stage stand star start state station stay steam steel step stick still stone stood stop store storm
    story straight strange stream street strong student study such sudden sugar summer sun supply sure surface
    surprise swim system table tail take talk tall taste teach team tell temple ten test than thank that their them
    then there these thick thin thing think third this those though thought thousand three through throw time tiny
    together told tomorrow tone too took tool top total touch toward town track trade train travel tree triangle trip
    trouble true trust try turn twelve twenty two uncle under unit until up use usual valley value very view village
    visit voice wait walk wall want warm wash watch water wave way wear weather week weight well west wheel when where
    which while white whole why wide wild will wind window winter wire wish with woman wonder wood word work world
    write wrong yard year yellow yes yet young your zero
    """.split()
)

SALT_LETTERS = 12
PROBES = 2**32 - 1
"""Stands for the level in the draw of probe prompts."""


class Prompts(msgspec.Struct, frozen=True):
    """How many words make a prompt of the wanted length, and how that was found out."""

    words: int
    """Of a prompt of the mean length."""
    seed: int
    source: str
    """usage: learned from the server's own counts; tokenizer; or estimate."""
    tokens_per_word: float
    overhead_tokens: float
    """Tokens that every prompt costs before its first drawn word: chat template and salt."""

    def words_for(self, tokens: float) -> int:
        """How many words make a prompt of `tokens` tokens."""
        return max(0, round((tokens - self.overhead_tokens) / self.tokens_per_word))

    @property
    def counted_overhead(self) -> float | None:
        """`overhead_tokens` where the server itself counted them."""
        return self.overhead_tokens if self.source == "usage" else None


def prompt(seed: int, level: int, index: int, words: int) -> str:
    """A text of `words` words after a salt that no other prompt opens with.

    The salt comes first, so that not even the first block of a prefix cache can match. Drawn from
    (seed, level, index) alone: the same request has the same text whichever worker sends it.
    """
    rng = np.random.default_rng([seed, level, index])
    salt = "".join(string.ascii_lowercase[i] for i in rng.integers(0, 26, SALT_LETTERS).tolist())
    drawn = rng.integers(0, len(_WORDS), max(0, words)).tolist()
    return " ".join([salt, *[_WORDS[i] for i in drawn]])


def probe_prompt(seed: int, index: int, words: int) -> str:
    """A salt and `words` words spread evenly over the vocabulary, so that the longest probe is its exact mean."""
    chosen = [_WORDS[i * len(_WORDS) // words] for i in range(words)]
    return " ".join([prompt(seed, PROBES, index, 0), *chosen])


def probe_sizes(input_tokens: int) -> list[list[int]]:
    """Numbers of words to probe with: the whole vocabulary once; less, where the context is too small for that."""
    near = max(8, input_tokens // 2)
    return [[0, 0, 0, len(_WORDS)], [0, 0, 0, near, near]]


def learn(words: Sequence[int], tokens: Sequence[int], input_tokens: int, seed: int) -> Prompts:
    """Fit tokens = overhead + ratio x words by least squares and solve it for the wanted length."""
    ratio, overhead = np.polyfit(np.asarray(words, float), np.asarray(tokens, float), 1)
    if not ratio > 0.1:  # no tokenizer packs ten words into a token: these counts are made up
        return estimated(input_tokens, seed)
    count = max(0, round((input_tokens - overhead) / ratio))
    return Prompts(count, seed, "usage", float(ratio), float(overhead))


def tokenized(count_tokens: Callable[[str], int], input_tokens: int, seed: int) -> Prompts:
    """The same line, from a tokenizer the user has. The chat template is not counted."""
    sizes = [4, *[max(8, input_tokens // 2)] * 8]
    counts = [count_tokens(prompt(seed, PROBES, i, n)) for i, n in enumerate(sizes)]
    return msgspec.structs.replace(learn(sizes, counts, input_tokens, seed), source="tokenizer")


def estimated(input_tokens: int, seed: int) -> Prompts:
    """The ratio of common English words in common vocabularies, where nothing can be asked. Says so."""
    ratio, overhead = 1.05, 8.0
    return Prompts(max(0, round((input_tokens - overhead) / ratio)), seed, "estimate", ratio, overhead)
