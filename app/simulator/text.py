"""What the simulator says: its answers, and how they are cut into deltas.

Strategy: the texts are fixed, so each delta's JSON is made once per process. Deltas are cut at code points, never
inside one: what a tokenizer does to words, Han and emoji families is imitated, lone surrogates are left to the model
that is about them.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import orjson

ANSWERS = {
    "stream": """\
A stream begins long before you see its first word. Your question travels to a server, waits in a queue, and is read \
in one go; that reading is the pause you notice. Then the model writes one token at a time, and each token leaves the \
building the moment it exists.

On its way it is wrapped three times. First in JSON, so that text, tool calls and bookkeeping can be told apart. Then \
in a server-sent event, which is nothing more than a line that starts with `data:` and a blank line after it. Last in \
an HTTP chunk, a length in hexadecimal and the bytes themselves. None of these wrappers knows about words: a character \
may be torn in two by the network and has to be put together again on the other side.

What makes a stream trustworthy is not its beginning but its end. A connection that closes says nothing; an answer is \
whole only when its writer said so. That is why a good relay numbers every event, sends exactly one that is the last, \
and lets a reader who fell off the train climb back on where they left.""",
    "markdown": """\
Here is the short version:

1. **Open** the stream with a `POST`; the answer is `text/event-stream`.
2. **Read** it line by line. A blank line ends an event.
3. **Stop** at the terminal event, not when the socket closes.
   - after `done` the text is whole,
   - after `error` keep what you have and say so.

```python
async with client.stream("POST", url, json={"prompt": "Hello"}) as response:
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            print(json.loads(line[5:]).get("content", ""), end="", flush=True)
```

| field | meaning |
|-------|---------|
| `id` | where to resume |
| `event` | what kind it is |
| `data` | one line of JSON |

> A reader who resumes after id 41 is sent 42 next: nothing twice, nothing lost.""",
    "tour": """\
The same sentence in several scripts: “The answer arrives word by word.”

中文：答案一个字一个字地到来。
日本語：答えは一語ずつ届きます。
ไทย: คำตอบมาถึงทีละคำ
العربية: تصل الإجابة كلمة كلمة.
हिन्दी: उत्तर एक-एक शब्द करके आता है।
Ελληνικά: Η απάντηση έρχεται λέξη προς λέξη.
Русский: Ответ приходит слово за словом.
한국어: 답은 한 단어씩 도착합니다.

And a family on the way home: 👨‍👩‍👧‍👦 🏠 🇬🇷 👍🏽 ❤️""",
    "chinese": """\
流式传输的意义在于不让读者等待。模型每写出一个词，服务器就立刻把它送出去；读者看到的不是一整页迟到的答案，而是一行正在生长的文字。

不过，网络并不认识汉字。一个汉字在 UTF-8 里占三个字节，而一次读取可能恰好停在第二个字节上。\
所以接收的一方要先按行切开字节，再解码，否则就会出现乱码。

最后一点：连接断开不等于回答结束。只有收到结束事件，才能说这个答案是完整的。""",
    "japanese": """\
ストリーミングとは、書き終わるのを待たずに届けることです。モデルが一語を書くたびに、その一語がすぐに読者のもとへ送られます。

ところが、ネットワークは文字を知りません。「漢」という一文字は三バイトで、その途中で切れることもあります。受け取る側は、\
まず行に分け、それから文字に戻します。

接続が閉じただけでは、答えが終わったとは言えません。最後の合図が届いて、はじめて完結です。""",
    "thai": """\
การส่งข้อมูลแบบสตรีมทำให้ผู้อ่านไม่ต้องรอจนคำตอบเสร็จสมบูรณ์ คำแรกจะปรากฏขึ้นทันทีที่แบบจำลองเขียนเสร็จ

ภาษาไทยไม่มีช่องว่างระหว่างคำ ดังนั้นการตัดข้อความต้องใช้พจนานุกรม และต้องไม่แยกสระหรือวรรณยุกต์ออกจากพยัญชนะ

เมื่อการเชื่อมต่อขาด ผู้อ่านสามารถกลับมาอ่านต่อจากจุดเดิมได้ โดยไม่มีคำใดหายไปหรือซ้ำกัน""",
    "arabic": """\
يصل الجواب إلى القارئ كلمةً كلمة، فلا ينتظر حتى يكتمل النص. يكتب النموذج رمزًا واحدًا في كل مرة، ويُرسَل الرمز فور كتابته.

تُكتب العربية من اليمين إلى اليسار، وتتصل حروفها بعضها ببعض؛ لذلك قد يتغير شكل الحرف عندما يصل الحرف الذي يليه.

وإذا انقطع الاتصال، عاد القارئ من حيث توقف دون أن يفقد شيئًا.""",
    "hindi": """\
स्ट्रीमिंग का अर्थ है कि पाठक को पूरा उत्तर बनने तक प्रतीक्षा नहीं करनी पड़ती। मॉडल जैसे ही एक शब्द लिखता है, वह शब्द भेज दिया जाता है।

देवनागरी में एक अक्षर कई चिह्नों से बनता है: क्ष, त्र, ज्ञ। यदि पाठ को बीच में काट दिया जाए, तो मात्रा अपने व्यंजन से अलग हो जाती है।

कनेक्शन टूटने पर पाठक वहीं से आगे पढ़ सकता है जहाँ वह रुका था।""",
    "greek": """\
Η απάντηση φτάνει στον αναγνώστη λέξη προς λέξη. Το μοντέλο γράφει ένα σύμβολο κάθε φορά και ο διακομιστής \
το στέλνει αμέσως.

Κάθε ελληνικό γράμμα χρειάζεται δύο μπάιτ, και το δίκτυο μπορεί να τα χωρίσει. Γι’ αυτό πρώτα κόβουμε \
γραμμές και μετά διαβάζουμε χαρακτήρες.

Το τέλος μιας σύνδεσης δεν είναι το τέλος μιας απάντησης.""",
    "emoji": """\
Some characters are made of many. A family 👨‍👩‍👧‍👦 is four people and three invisible joiners; a wave 👋🏽 is a hand \
and a skin tone; a flag 🇯🇵 is two letters; a heart ❤️ is an old symbol and a wish to see it in red.

Work in progress: 👩‍💻 writes, 👨‍🚀 flies, 🧑‍🎨 paints, 🏳️‍🌈 waves, 👩‍❤️‍💋‍👨 kiss, 5️⃣ counts. A model may send each \
in pieces, so 👨‍ comes first and the rest of the 👨‍👧‍👦 follows. Cut them apart and a family becomes strangers. 🎉""",
}
REASONING = "The reader asks something. First recall what is known, then weigh it: 先に考える。 Keep it short. Good."
REFUSAL = "I’m sorry, but I can’t help with that. 申し訳ありませんが、お手伝いできません。"

# An English prompt gets one of these; another script, or a script's name, gets its own.
_PLAIN = ("stream", "markdown", "tour")
_WANTED = tuple(
    (name, re.compile(pattern, re.I))
    for name, pattern in (
        ("japanese", r"[\u3040-\u30ff]|\bjapanese\b"),
        ("chinese", r"[\u4e00-\u9fff]|\bchinese\b"),
        ("thai", r"[\u0e00-\u0e7f]|\bthai\b"),
        ("arabic", r"[\u0600-\u06ff]|\barabic\b"),
        ("hindi", r"[\u0900-\u097f]|\bhindi\b"),
        ("greek", r"[\u0370-\u03ff]|\bgreek\b"),
        ("emoji", r"[\U0001f300-\U0001faff]|\bemojis?\b"),
        ("markdown", r"\b(?:markdown|list|table|code)\b"),
        ("tour", r"\b(?:scripts|languages|unicode)\b"),
    )
)

_TOKEN = re.compile(
    r"\n+"
    r"|\ ?[A-Za-z\u00c0-\u024f\u0400-\u04ff]{1,7}"  # a word and its space, or a piece of a long one
    r"|\ ?[\u0370-\u03ff\u1f00-\u1fff]{1,4}"
    r"|\ ?[\u0600-\u06ff\u0900-\u097f\uac00-\ud7af]{1,3}"
    r"|[\u0e00-\u0e7f]{1,3}"
    r"|[\u4e00-\u9fff]{2}(?=[\u3000-\u3002\uff0c的是在了不])|[\u3040-\u30ff]{1,2}|[\u4e00-\u9fff]"
    r"|[0-9]{1,3}"
    r"|\ {2,}(?=\ )"
    r"|[\U0001f300-\U0001faff]\u200d[\U0001f3a8\U0001f4bb\U0001f680]"  # people at work stay whole
    r"|\ ?[\U0001f300-\U0001faff]\u200d?"  # families come one by one
    r"|\ ?[!-/:-@\[-`{-~]{1,3}"
    r"|.",
    re.S,
)


def choose(prompt: str) -> str:
    """Return the name of the answer to *prompt*, the same one each time."""
    for name, pattern in _WANTED:
        if pattern.search(prompt):
            return name
    return _PLAIN[zlib.crc32(prompt.encode()) % len(_PLAIN)]


def cut(text: str, size: int = 0) -> Iterator[str]:
    """Cut *text* the way a tokenizer would, or every *size* code points."""
    if size:
        return (text[at : at + size] for at in range(0, len(text), size))
    return (match[0] for match in _TOKEN.finditer(text))


def encoded(text: str, size: int = 0) -> Iterable[bytes]:
    """Return the JSON of each delta of *text*."""
    return map(orjson.dumps, cut(text, size))


@lru_cache(maxsize=64)
def answer(name: str, size: int = 0) -> tuple[bytes, ...]:
    """Return the JSON of each delta of the answer *name*."""
    return tuple(encoded(ANSWERS[name], size))


def joined(pieces: Iterable[bytes]) -> orjson.Fragment:
    """Return the JSON of the text whose deltas' JSON is *pieces*, whatever is escaped in them."""
    return orjson.Fragment(b'"%b"' % b"".join(piece[1:-1] for piece in pieces))


def logprob(piece: bytes, top: int) -> dict[str, Any]:
    """Return the log probability of the token whose JSON is *piece*, with *top* alternatives: the same each time."""
    chance = -(zlib.crc32(piece) % 1000) / 1000
    token = json.loads(piece)  # not orjson: a lone surrogate may be a token
    said = {"token": orjson.Fragment(piece), "logprob": chance, "bytes": _bytes(token)}
    others = [{"token": f" other{at}", "logprob": chance - at, "bytes": _bytes(f" other{at}")} for at in range(1, top)]
    return said | {"top_logprobs": [said, *others] if top else []}


def _bytes(token: str) -> list[int]:
    return list(token.encode(errors="surrogatepass"))
