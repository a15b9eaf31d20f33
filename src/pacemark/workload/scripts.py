"""The words and the two clauses of a sentence, for each script that prompts can be written in.

`N` is a noun, `V` a verb, `A` an adjective, `P` a preposition and `C` a conjunction; all else stands as it is. Forms
are chosen so that every word fits every place of its kind: nouns of one gender, verbs of one person. Of each kind
there are as many words that a small number of sentences can hold every one of them equally often.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["SCRIPTS", "Script"]


class Script(NamedTuple):
    """One script, and a language that is written in it."""

    language: str
    first: str
    """The first clause of a sentence, its units apart by blanks."""
    second: str
    joiner: str
    """What stands between two units."""
    words: dict[str, tuple[str, ...]]


def _words(**kinds: str) -> dict[str, tuple[str, ...]]:
    return {kind: tuple(text.split()) for kind, text in kinds.items()}


_LATIN = _words(
    N="""
    animal answer apple area arm artist author autumn baby ball bank basket bear bell bird board boat body book
    border bottle box branch bread bridge brother bus cake camp captain car card castle cat cause chair child
    church circle city class clock cloud coast coat colour cook copper corner country course cousin cow crowd
    cup dance daughter day desert dinner dish doctor dog door dream dress driver egg engine evening example eye
    face farm farmer father feather fence field figure finger fire fish flag floor flower food foot forest
    friend fruit garden gate girl glass grass ground group hall hand harbour harvest hat heart hill history home
    horse hour house idea iron island journey kettle key king kitchen ladder lake lamp language leaf letter
    library lightning line lion machine map market master meadow meal melody member metal mill minute mirror money
    month moon morning mother mountain music nation neighbour night noise north nose note office orange owner
    page paint paper parent park party path pattern pencil people person picture pilot place planet plate plant
    pocket poem port problem queen question radio rain record region report river road room rope rule sailor
    school science sea season secret shadow shell ship shop
    """,
    V="""
    admires answers asks avoids becomes believes breaks brings builds buys calls carries catches changes chooses
    cleans climbs closes colours cooks counts covers crosses cuts describes discovers divides draws drops enters
    explains feeds fills finds finishes follows forgets gives greets grows guards hears helps hides holds hunts
    joins keeps knows leads learns leaves lights likes lifts loses loves marks measures meets misses moves names
    needs opens orders owns paints passes plans prepares promises protects pulls pushes reaches reads remembers
    repairs sees
    """,
    A="""
    able bad beautiful big black blue brave bright broad brown busy calm careful clean clear clever cold common
    cool dark dear deep distant dry early easy empty equal fair famous far fast fine first flat fresh full
    gentle glad golden good grand gray great green happy hard heavy high hot huge kind large late lazy light
    little local lonely long loud lovely low narrow natural neat new noble old open plain polite poor proud quick
    quiet ready red rich round
    """,
    P="near behind beside under above before inside outside across beyond",
    C="and but while because although",
)

_CYRILLIC = _words(
    N="""
    дом мост город лес стол стул сад путь снег дождь ветер огонь берег остров корабль поезд завод рынок театр
    музей парк холм ручей луг камень замок ключ свет звук голос рассказ ответ вопрос урок журнал рисунок подарок
    завтрак вечер месяц
    """,
    V="""
    видит любит помнит меняет знает держит ищет находит строит несёт берёт даёт хранит слышит ждёт открывает
    закрывает рисует украшает встречает
    """,
    A="""
    старый новый большой малый белый чёрный тихий светлый тёмный добрый тёплый холодный быстрый долгий узкий
    высокий крепкий красивый древний простой
    """,
    P="через сквозь про под за",
    C="и но пока если когда",
)

_ARABIC = _words(
    N="""
    البيت الكتاب الباب الشارع البحر النهر الجبل القمر المطر الطريق السوق الولد الرجل المعلم الطبيب الطالب الكاتب
    الصديق الجار القلم المكتب الكرسي المفتاح المصباح القطار القارب المركب الميناء الجسر البستان الحقل الخبز
    الطعام الصوت السؤال الجواب الدرس اليوم المساء الصباح
    """,
    V="""
    يرى يحب يعرف يحمل يجد يترك يفتح يغلق يرسم يبني يحفظ يسمع يذكر ينتظر يطلب يقابل يغير يزور يصف يحرس
    """,
    A="""
    الكبير الصغير الجديد القديم الجميل الطويل القصير البعيد القريب السريع البطيء الهادئ الواسع الضيق البارد
    الحار النظيف الأبيض الأسود الأخضر
    """,
    P="في على عند قرب خلف",
    C="ثم لكن بينما حيث كما",
)

_DEVANAGARI = _words(
    N="""
    घर पुल शहर जंगल बाग़ खेत रास्ता पहाड़ सागर बादल सूरज चाँद पेड़ फूल पत्ता फल घोड़ा बैल पक्षी लड़का राजा किसान
    लेखक कवि डॉक्टर पड़ोसी मित्र भाई काग़ज़ दरवाज़ा कमरा दीपक बाज़ार जहाज़ गीत सवाल जवाब पाठ दिन साल
    """,
    V="""
    देखता चाहता जानता पकड़ता पाता छोड़ता खोलता बनाता रखता सुनता माँगता बदलता ढूँढता लाता भेजता समझता बचाता उठाता
    सजाता मानता
    """,
    A="""
    पुराना नया बड़ा छोटा अच्छा लंबा ऊँचा गहरा ठंडा मीठा हरा पीला नीला काला सीधा चौड़ा हल्का गाढ़ा ताज़ा प्यारा
    """,
    C="और लेकिन जबकि क्योंकि फिर",
)

_CJK = _words(
    N="""
    城市 村庄 河流 山谷 森林 花园 学校 老师 学生 医生 农民 作家 朋友 邻居 孩子 母亲 父亲 国王
    船长 画家 房子 窗户 桌子 椅子 钥匙 灯光 书本 信件 故事 问题 答案 音乐 火车 轮船 桥梁 市场
    食物 早晨 夜晚 海岸
    """,
    V="看见 喜欢 记得 改变 知道 寻找 发现 建造 带来 保护 听见 等待 打开 关闭 描写 遇见 离开 照亮 选择 需要",
    A="古老 新鲜 巨大 细小 美丽 安静 明亮 黑暗 善良 温暖 寒冷 快速 遥远 狭窄 高大 坚固 简单 著名 忙碌 快乐",
    P="旁边 后面 前面 上面 里面",
    C="而且 但是 因为 虽然 然后",
)

SCRIPTS: dict[str, Script] = {
    "latin": Script("English", "The A N V the N P the N,", "C the N V that A N.", " ", _LATIN),
    "cyrillic": Script("Russian", "A N V N P N,", "C N V A N.", " ", _CYRILLIC),
    "arabic": Script("Arabic", "V N N A،", "C V N P N A.", " ", _ARABIC),
    "devanagari": Script("Hindi", "A N N V है,", "C A N N V है।", " ", _DEVANAGARI),
    "cjk": Script("Chinese", "A 的 N 在 N P V N ，", "C N V A 的 N 。", "", _CJK),
}
"""By the name of the script."""
