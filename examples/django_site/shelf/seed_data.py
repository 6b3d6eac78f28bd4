"""What `manage.py seed` puts on the shelf. All of the summaries were written for this demo."""

from typing import NamedTuple


class SeedBook(NamedTuple):
    """One book and its author, as the seed command writes them."""

    slug: str
    title: str
    title_zh: str
    author: str
    author_zh: str
    year: int
    hue: int
    summary: str


BOOKS = [
    SeedBook(
        "three-kingdoms", "Romance of the Three Kingdoms", "三国演义",
        "Luo Guanzhong", "罗贯中", 1522, 8,
        "An empire falls into three, and every general has a plan for putting it together.",
    ),
    SeedBook(
        "journey-to-the-west", "Journey to the West", "西游记",
        "Wu Cheng'en", "吴承恩", 1592, 38,
        "A monk, a monkey and eighty-one trials. The monkey forks itself from a tuft of hair, "
        "which is the oldest worker pool on this shelf.",
    ),
    SeedBook(
        "don-quixote", "Don Quixote", "堂吉诃德",
        "Miguel de Cervantes", "塞万提斯", 1605, 22,
        "A reader of too many books mistakes windmills for giants.",
    ),
    SeedBook(
        "dream-of-the-red-chamber", "Dream of the Red Chamber", "红楼梦",
        "Cao Xueqin", "曹雪芹", 1791, 348,
        "A great house, some four hundred people, and a stone that remembers all of it.",
    ),
    SeedBook(
        "pride-and-prejudice", "Pride and Prejudice", "傲慢与偏见",
        "Jane Austen", "简·奥斯汀", 1813, 320,
        "Two people wait on each other for so long that one of them has to time out first.",
    ),
    SeedBook(
        "frankenstein", "Frankenstein", "弗兰肯斯坦",
        "Mary Shelley", "玛丽·雪莱", 1818, 96,
        "A student starts something and never once checks on how it is doing.",
    ),
    SeedBook(
        "moby-dick", "Moby-Dick", "白鲸",
        "Herman Melville", "赫尔曼·梅尔维尔", 1851, 205,
        "A captain, a whale, and a great many chapters about rope.",
    ),
    SeedBook(
        "alice", "Alice's Adventures in Wonderland", "爱丽丝梦游仙境",
        "Lewis Carroll", "刘易斯·卡罗尔", 1865, 268,
        "Down a hole after a rabbit who is always past his deadline.",
    ),
    SeedBook(
        "crime-and-punishment", "Crime and Punishment", "罪与罚",
        "Fyodor Dostoevsky", "陀思妥耶夫斯基", 1866, 0,
        "The exception was raised on page eighty; the rest is the traceback.",
    ),
    SeedBook(
        "twenty-thousand-leagues", "Twenty Thousand Leagues Under the Seas", "海底两万里",
        "Jules Verne", "儒勒·凡尔纳", 1870, 190,
        "A submarine with a library, seen from the inside.",
    ),
    SeedBook(
        "eighty-days", "Around the World in Eighty Days", "八十天环游地球",
        "Jules Verne", "儒勒·凡尔纳", 1872, 160,
        "A wager with a deadline of exactly eighty days, and one off-by-one that saves it.",
    ),
    SeedBook(
        "time-machine", "The Time Machine", "时间机器",
        "H. G. Wells", "赫伯特·乔治·威尔斯", 1895, 250,
        "A long sleep, with a very late wake-up.",
    ),
    SeedBook(
        "ah-q", "The True Story of Ah Q", "阿Q正传",
        "Lu Xun", "鲁迅", 1921, 120,
        "A man who wins every fight he loses.",
    ),
    SeedBook(
        "rickshaw-boy", "Rickshaw Boy", "骆驼祥子",
        "Lao She", "老舍", 1937, 14,
        "Three years of work for one rickshaw, three times over.",
    ),
]  # fmt: skip

NOTES = [
    ("journey-to-the-west", "Mei", "孙悟空拔毛变猴：一毛一任务，真是最早的 TaskGroup。"),
    (
        "journey-to-the-west",
        "Tom",
        "Eighty-one trials, and not one of them is awaited in parallel.",
    ),
    ("eighty-days", "Ana", "Read it in one evening. The ending is about time zones."),
    ("dream-of-the-red-chamber", "林", "每次重读都会注意到另一个人物。"),
]

GREETINGS = [
    ("Rondel", "Welcome. Leave a line: an async view writes it with acreate()."),
    ("书架管理员", "欢迎光临，请随意翻阅。"),
]
