"""The words of made prompts. Pure, but for the words that no other request has."""

from __future__ import annotations

import random
from typing import Final

_WORDS: Final = """
able about above after again against age air all along also always an and animal another answer
any apple are arm around art as ask at back bag ball bank be because bed been before begin below
best between big bird birth black blood blue body book bottom box bread break bridge bright
brother build but buy by call came can car cat cause center century chair change child children
church city class clean clock close cloud club coast coat cold color cool cost could country
court cup cut dark day days death deep did do doctor does dog door down draw dream dry during
each early east edge eight empty end energy engine even every face fact fall false family far
farm fast father feel few field find fire first fish five floor flower food foot for force
forest form found four free fresh friend from front fruit full game get give given glass god
going gold good grass great green group grow had half hand hard has hat have he head health
heart heat her high hill him his hold home horse hot hour house how however hundred idea if in
inside into iron is it its joy just keep key king lake land large last late later law leader
leaf left leg let letter lie life light like line little long look love machine made main make
man many map market may me member men middle milk million mind minute money month moon more most
mother move much music must my name nation nature near never new news night nine no north not
nothing now number ocean of off office old on once one only open or other our out outside over
pain paper park part party pay peace people place plane plant plate point poor power president
price public question quiet rain read ready real reason red result rich right ring rise river
road room root run safe said salt same school sea second see seed sell send seven shape she ship
shop short should side since sit six size sleep slow small snow so soft some something song
sound south speed spirit spring stand start state states still stone stop store storm story
street strong such sugar summer sun sweet table take tall team tell ten than that the their them
then there these they think third this those thought three through time to today too tool top
touch town train tree true turn two under until up upon use used very voice walk wall war warm
was watch water way we weak week weight well were west wet what wheel when where which while
white who whole wide will wind window winter with within without woman women wood word work
world would write year years you young your
"""
WORDS: Final = tuple(_WORDS.split())
"""464 common words, each of which is one token behind a space, and at the beginning of a text, to the
tokenizers of nearly all models; so a made prompt has about as many tokens as words."""

_fresh = random.SystemRandom()


def own_words(count: int) -> str:
    """Return words that no other request has, of this run or of another: the seed has no say in them."""
    return " ".join(_fresh.choices(WORDS, k=count))


def drawn_words(draw: random.Random, count: int) -> list[str]:
    """Return so many words, the same for the same state of the generator."""
    return draw.choices(WORDS, k=count)
