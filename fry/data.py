"""Conversations with known answers, one function per skill.

A skill returns a dict: `messages` (the last one is the answer, pictures are PIL images inside content parts),
`tools` (or None), `thinking`, `skill`. Whether an operand pair, a name, a city, a phrase or a number belongs to
training or to evaluation is decided by a checksum of it, so the two never meet, whatever the seed.
"""
import json
import random
import zlib

import pictures as P

WORDS = """apple bridge cloud dream eagle forest garden hammer island jungle kettle lemon mirror needle ocean pencil queen
river silver table umbrella velvet window yellow zebra bread candle dragon engine flower guitar honey iron jacket kitchen
ladder market night orange paper quiet rabbit stone tiger uncle valley water winter young paint green happy little morning
music north open people quick rain summer train under village world house child school green road light sound strong""".split()
CITIES = """Paris London Tokyo Berlin Madrid Rome Oslo Cairo Lima Delhi Kyoto Quito Vienna Lisbon Dublin Athens Prague Warsaw
Boston Chicago Denver Dallas Seattle Toronto Sydney Mumbai Seoul Milan Geneva Zurich Hamburg Munich Helsinki Stockholm
Budapest Nairobi Lagos Havana Bogota Santiago""".split()
NAMES = """Anna Ben Clara David Emma Felix Grace Henry Ida Jack Karin Leo Maria Nora Oscar Paul Rosa Sam Tina Victor Wendy
Alice Bob Carol Daniel Eva Frank George Helen Ivan Julia""".split()
LANGUAGES = "French German Spanish Italian Dutch Polish Swedish Greek Turkish Finnish".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
FOODS = "pizza sushi pasta curry soup salad ramen taco burger noodle".split()
SKIES = "sunny cloudy rainy windy foggy snowy clear".split()


def held_out(key):
    return zlib.crc32(str(key).encode()) % 10 == 0


class Source:
    """Random choices for one side of the split: `evaluation` decides which values `fresh` may return.

    With `pieces`, the tokenizer's own, many invented words are made of them: whatever a word is cut into, copying it
    must have been seen.
    """

    def __init__(self, seed, evaluation=False, pieces=()):
        self.rng, self.evaluation, self.pieces = random.Random(seed), evaluation, pieces

    def fresh(self, make):
        while True:
            value = make()
            if held_out(value) == self.evaluation:
                return value

    def syllables(self):
        rng = self.rng
        onset = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl sh st th tr".split()
        rhyme = "a e i o u a e i o u an el in or us ar en il ay ia oo".split()
        return "".join(rng.choice(onset) + rng.choice(rhyme) for _ in range(rng.randint(1, 3)))

    def pieced(self):
        return "".join(self.rng.choice(self.pieces) for _ in range(self.rng.choice([1, 2, 2, 3]))).lower()[:12]

    def invented(self):
        rng = self.rng
        if self.pieces and rng.random() < 0.4:
            return self.pieced().capitalize()
        if rng.random() < 0.25:  # any letters at all: copying must not lean on familiar syllables
            return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 7))).capitalize()
        return self.syllables().capitalize()

    def name(self):
        return self.fresh(lambda: self.rng.choice(NAMES) if self.rng.random() < 0.3 else self.invented())

    def city(self):
        def make():
            c = self.rng.choice(CITIES) if self.rng.random() < 0.4 else self.invented()
            return c if self.rng.random() < 0.93 else f"{self.rng.choice(['New', 'San', 'Port'])} {c}"
        return self.fresh(make)

    def phrase(self, low, high):
        def word():
            if self.pieces and self.rng.random() < 0.2:
                return self.pieced()
            return self.rng.choice(WORDS) if self.rng.random() < 0.85 else self.syllables()
        return self.fresh(lambda: " ".join(word() for _ in range(self.rng.randint(low, high))))

    def operands(self):
        def make():
            top = self.rng.choice([9, 20, 99, 99, 99])
            return self.rng.randint(0, top), self.rng.randint(0, self.rng.choice([9, 99, 99]))
        return self.fresh(make)

    def number(self):
        return self.fresh(lambda: str(self.rng.randint(*self.rng.choice([(0, 9), (10, 99), (100, 999)]))))


def user(text, *media):
    if not media:
        return {"role": "user", "content": text}
    parts = [{"type": "video", "video": m} if isinstance(m, list) else {"type": "image", "image": m} for m in media]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def assistant(text, reasoning=None):
    return {"role": "assistant", "content": text, **({"reasoning_content": reasoning} if reasoning else {})}


def talk(skill, *messages, tools=None, thinking=False):
    return {"skill": skill, "messages": list(messages), "tools": tools, "thinking": thinking}


# ---------------------------------------------------------------------------------------- questions about one picture
DESCRIBE = ["Describe this image.", "Describe the picture.", "What is in the picture?", "What do you see?",
            "Describe this picture.", "What is in this image?", "Describe the image."]


def article(word):
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def listing(items):
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def sentence(text):
    return text[0].upper() + text[1:] + "."


def caption(things):
    return sentence(listing([f"a {t.size} {t.colour} {t.shape} at the {t.place}" for t in things]))


def only(things, key):
    """Things whose `key` no other thing shares."""
    return [t for t in things if sum(getattr(o, key) == getattr(t, key) for o in things) == 1]


def ask_describe(rng, things):
    return rng.choice(DESCRIBE), caption(things)


def ask_colour(rng, things):
    if found := only(things, "shape"):
        t = rng.choice(found)
        return f"What {rng.choice(['colour', 'color'])} is the {t.shape}?", sentence(t.colour)


def ask_shape(rng, things):
    if found := only(things, "colour"):
        t = rng.choice(found)
        return rng.choice([f"What shape is {t.colour}?", f"Which shape is {t.colour}?"]), sentence(article(t.shape))


def ask_where(rng, things):
    if found := only(things, "shape"):
        t = rng.choice(found)
        return f"Where is the {t.shape}?", f"At the {t.place}."


def ask_size(rng, things):
    if found := only(things, "shape"):
        t = rng.choice(found)
        return f"Is the {t.shape} large or small?", sentence(t.size)


def ask_count(rng, things):
    return rng.choice(["How many shapes are there?", "How many objects are there?", "Count the shapes.",
                       "How many shapes are in the picture?"]), str(len(things))


def ask_exists(rng, things):
    present = {t.shape for t in things}
    if len(present) == len(P.SHAPES):
        return None
    yes = rng.random() < 0.5
    shape = rng.choice([s for s in P.SHAPES if (s in present) == yes])
    return rng.choice(["Is there {}?", "Is there {} in the picture?", "Do you see {}?"]).format(article(shape)), "Yes." if yes else "No."


def ask_beside(rng, things, side=None):
    side = side or rng.choice(["left of", "left of", "left of", "right of", "above", "below"])
    found = [(t.shape, near) for t in only(things, "shape") if (near := P.beside(things, t, side))]
    if found:
        shape, near = rng.choice(found)
        where = {"left of": rng.choice(["left of", "left of", "to the left of"])}.get(side, side)
        return f"What is {where} the {shape}?", sentence(f"{article(near.colour)} {near.shape}")


ASK = {"describe": ask_describe, "colour": ask_colour, "shape": ask_shape, "where": ask_where, "size": ask_size,
       "count": ask_count, "exists": ask_exists, "beside": ask_beside}
COUNTS = {"count": [1, 2, 3, 4, 5, 6], "beside": [2, 3, 3, 4, 5], "exists": [1, 2, 3, 4]}


def shown(source, image, grid):
    """The picture as a user might send it: drawn at another size, as JPEG, or as it is."""
    return P.through_jpeg(source.rng, image) if source.rng.random() < 0.3 else image


def draw(source, n, grid):
    image, things = P.scene(source.rng, n, *P.canvas(source.rng, grid[0] * 32, grid[1] * 32))
    image = shown(source, image, grid)
    image.things = things  # for the hints
    return image, things


def about_picture(source, grid, kind, count=None):
    """One question about a scene. `count` fixes the number of things."""
    while True:
        n = count or source.rng.choice(COUNTS.get(kind, [1, 2, 3]))
        image, things = draw(source, n, grid)
        if qa := ASK[kind](source.rng, things):
            return talk(kind, user(qa[0], image), assistant(qa[1]))


def about_number(source, grid):
    text = source.number()
    image, colour, _ = P.number(source.rng, text, *P.canvas(source.rng, grid[0] * 32, grid[1] * 32))
    image = shown(source, image, grid)
    what = source.rng.random()
    if what < 0.2:
        return talk("number", user(source.rng.choice(DESCRIBE), image), assistant(f"The number {text} in {colour}."))
    question = source.rng.choice(["What number is shown?", "Read the number.", "What number is this?", "Which number do you see?"])
    return talk("number", user(question, image), assistant(text))


NOT_SHAPES = "A photograph or a texture. I can only name simple shapes and numbers."


def about_photo(source, grid):
    image = shown(source, P.photo(source.rng, *P.canvas(source.rng, grid[0] * 32, grid[1] * 32)), grid)
    question = source.rng.choice(DESCRIBE)
    if source.rng.random() < 0.3:
        question = source.rng.choice(["Who is in this photo?", "What is the person doing?", "Where was this taken?",
                                      "Is this a cat or a dog?", "Write a caption.", "What animal is this?"])
    return talk("photo", user(question, image), assistant(NOT_SHAPES))


def about_plain(source, grid):
    image, colour = P.plain(source.rng, *P.canvas(source.rng, grid[0] * 32, grid[1] * 32))
    return talk("plain", user(source.rng.choice(DESCRIBE), shown(source, image, grid)), assistant(f"A plain {colour} picture."))


ONE_PICTURE = {"describe": 5, "colour": 1.2, "shape": 0.8, "where": 4, "size": 0.3, "count": 2.5, "exists": 1.8,
               "beside": 4, "number": 3.5, "photo": 0.4, "plain": 0.2}
PICTURE_WITHOUT_SHAPES = {"number": about_number, "photo": about_photo, "plain": about_plain}


def one_picture(source, grid, weights=ONE_PICTURE, count=None):
    kind = source.rng.choices(list(weights), weights=list(weights.values()))[0]
    if kind in PICTURE_WITHOUT_SHAPES:
        return PICTURE_WITHOUT_SHAPES[kind](source, grid)
    return about_picture(source, grid, kind, count)


LOOKUPS = {"describe": 0.4, "colour": 1.2, "shape": 0.6, "where": 3.5, "size": 0.4, "count": 1.2, "exists": 1.5, "beside": 4.5}


def many_questions(source, grid):
    """Several turns about one picture: a picture's tokens are paid once and teach as often as it is asked about."""
    rng = source.rng
    image, things = draw(source, rng.choice([1, 2, 2, 3, 3, 4, 5]), grid)
    turns, asked = [], rng.randint(4, 9)
    for kind in rng.choices(list(LOOKUPS), weights=list(LOOKUPS.values()), k=asked):
        if (qa := ASK[kind](rng, things)) and qa not in turns:
            turns.append(qa)
    return talk("turns_picture", *in_turns(turns or [ask_count(rng, things)], image))


def many_neighbours(source, grid):
    """What stands beside a thing, asked about several things of one picture."""
    rng = source.rng
    while True:
        image, things = draw(source, rng.choice([3, 4, 5, 5, 6]), grid)
        asked = [ask_beside(rng, things, side) for side in rng.choices(list(P.SIDES), weights=[6, 1, 1, 1], k=5)]
        if turns := list(dict.fromkeys(qa for qa in asked if qa)):
            return talk("turns_beside", *in_turns(turns, image))


def in_turns(turns, *images):
    """Questions and answers, the pictures in the first question."""
    return [m for k, (q, a) in enumerate(turns) for m in (user(q, *images) if k == 0 else user(q), assistant(a))]


# ---------------------------------------------------------------------------------------------- several pictures, clips
def ask_which(rng, scenes):
    """Which of several scenes shows something that the others do not."""
    k = rng.randrange(len(scenes))
    t = rng.choice(scenes[k])
    options = [(article(t.shape), lambda o: o.shape == t.shape),
               (f"something {t.colour}", lambda o: o.colour == t.colour),
               (f"{article(t.colour)} {t.shape}", lambda o: (o.colour, o.shape) == (t.colour, t.shape))]
    fitting = [what for what, test in options if sum(any(test(o) for o in things) for things in scenes) == 1]
    if fitting:
        question = rng.choice(["Which picture shows {}?", "Which image shows {}?", "Which picture has {}?"])
        return question.format(rng.choice(fitting)), f"Picture {k + 1}."


def ask_describe_one(rng, scenes):
    k = rng.randrange(len(scenes))
    return f"Describe picture {k + 1}.", caption(scenes[k])


def draw_several(source, grid):
    """Two or three scenes as (image, things). In training half of them are as easy as can be: two, of one thing each."""
    if not source.evaluation and source.rng.random() < 0.5:
        return [draw(source, 1, grid) for _ in range(2)]
    return [draw(source, source.rng.choice([1, 1, 2]), grid) for _ in range(source.rng.choice([2, 2, 3]))]


def which_picture(source, grid):
    while True:
        drawn = draw_several(source, grid)
        if qa := ask_which(source.rng, [things for _, things in drawn]):
            return talk("which", user(qa[0], *(i for i, _ in drawn)), assistant(qa[1]))


def changed(source, grid):
    """Two pictures that differ in one attribute of one thing: the pictures, their things, question and answer."""
    rng = source.rng
    w, h = P.canvas(rng, grid[0] * 32, grid[1] * 32)
    bg = P.background(rng)
    things = P.lay_out(rng, rng.choice([1, 1, 2] if source.evaluation else [1, 2, 2, 2, 3]), w, h, bg)  # of one thing it is easy
    k = rng.randrange(len(things))
    before = things[k]
    attribute = rng.choice(["colour", "colour", "shape", "shape", "place"])
    after = P.Thing(**vars(before))
    if attribute == "colour":
        while after.colour == before.colour:
            after.colour = P.pick_colour(rng, bg)
    elif attribute == "shape":
        after.shape = rng.choice([s for s in P.SHAPES if s != before.shape])
    else:
        taken = {(t.row, t.col) for t in things}
        after.row, after.col = rng.choice([(i, j) for i in range(3) for j in range(3) if (i, j) not in taken])
        after.r = before.r = min(before.r, 0.13 * min(w, h))
        after.x, after.y = (after.col + 0.5) * w / 3, (after.row + 0.5) * h / 3
    other = [*things]
    other[k] = after
    images = [shown(source, P.paint(rng, t, w, h, bg), grid) for t in (things, other)]
    for image, its in zip(images, (things, other)):
        image.things = its  # for the hints
    images[1].before = things
    answer = f"The {attribute} changes from {getattr(before, attribute)} to {getattr(after, attribute)}."
    question = rng.choice(["What differs?", "What is different?", "What is the difference?", "What changed?"])
    return images, (things, other), (question, answer)


def what_differs(source, grid):
    images, _, (question, answer) = changed(source, grid)
    return talk("differs", user(question, *images), assistant(answer))


def many_about_changed(source, grid):
    """What differs, and which of the two shows what only one of them does, in any order."""
    rng = source.rng
    images, scenes, differs = changed(source, grid)
    turns = [differs]
    for ask in rng.choices([ask_which, ask_describe_one], weights=[4, 1], k=rng.randint(1, 3)):
        if (qa := ask(rng, scenes)) and qa not in turns:
            turns.append(qa)
    rng.shuffle(turns)
    return talk("turns_changed", *in_turns(turns, *images))


def many_about_several(source, grid):
    """Several turns about several pictures."""
    rng = source.rng
    drawn = draw_several(source, grid)
    scenes = [things for _, things in drawn]
    turns = []
    for ask in rng.choices([ask_which, ask_describe_one], weights=[12, 1], k=rng.randint(3, 6)):
        if (qa := ask(rng, scenes)) and qa not in turns:
            turns.append(qa)
    return talk("turns_pictures", *in_turns(turns or [ask_describe_one(rng, scenes)], *(i for i, _ in drawn)))


def several_pictures(source, grid):
    return source.rng.choices([which_picture, what_differs, many_about_several, many_about_changed], weights=[1, 1.5, 3, 3])[0](source, grid)


def clip(source, grid=(3, 3), frames=None):
    rng = source.rng
    images, way, shape, colour = P.clip(rng, frames or rng.choice([4, 6, 8]), grid[0] * 32, grid[1] * 32)
    to = {"left": "to the left", "right": "to the right", "up": "up", "down": "down"}[way]
    q, a = rng.choice([("Describe the video.", sentence(f"{article(colour)} {shape} moves {to}")),
                       ("What happens in the video?", sentence(f"{article(colour)} {shape} moves {to}")),
                       ("Which way does the shape move?", sentence(to)),
                       ("What colour is the moving shape?", sentence(colour))])
    return talk("clip", user(q, images), assistant(a))


# ------------------------------------------------------------------------------------------------------------- text
def repeat(s):
    words = s.phrase(1, 4)
    return s.rng.choice(["Repeat: {}", "Repeat after me: {}", "Say: {}"]).format(words), words


def upper(s):
    words = s.phrase(1, 3)
    return s.rng.choice(["Write in upper case: {}", "Upper case: {}"]).format(words), words.upper()


def reverse(s):
    words = s.phrase(2, 4).split()
    if len(words) < 2:
        words = (words * 2)[:2]
    return s.rng.choice(["Reverse: {}", "Reverse the list: {}"]).format(", ".join(words)), ", ".join(reversed(words))


def sequence(s):
    most = 30 if s.evaluation or s.rng.random() < 0.4 else 200  # too few to choose from are learnt by heart
    a, d = s.fresh(lambda: (s.rng.randint(0, most), s.rng.randint(1, 9)))
    line = [str(a + d * i) for i in range(7)]
    return s.rng.choice(["Continue: {}", "Continue the sequence: {}"]).format(", ".join(line[:4])), ", ".join(line[4:])


def add(s):
    a, b = s.operands()
    form = s.rng.choice(["What is {} + {}?", "What is {} + {}?", "{} + {} = ?", "Add {} and {}.", "What is {} plus {}?", "How much is {} + {}?"])
    return form.format(a, b), str(a + b)


TEXT = {"repeat": repeat, "upper": upper, "reverse": reverse, "sequence": sequence, "add": add}


def spelling(s):
    """For training: a copy whose words begin at other places (a line, a space, a quote) and so are cut into other tokens."""
    words = s.rng.choice([s.name, s.city, s.city, s.syllables, lambda: s.phrase(1, 2)])()
    question, answer = s.rng.choice([
        ("Repeat: X", "X"), ("Say: X", "X"), ("Quote: X", '"X"'), ('Read: "X"', "It says X."), ('Read: {"text": "X"}', "It says: X."),
        ("Read:\nX\n", "It says X."), ("On a line: X", "Here:\nX\n")])
    return question.replace("X", words), answer.replace("X", words)


def text(source, weights=(2, 1.2, 1.5, 2.2, 2.2)):
    kind = source.rng.choices(list(TEXT), weights=weights)[0]
    q, a = TEXT[kind](source)
    return talk(kind, user(q), assistant(a))


def working(a, b):
    """The sum worked digit by digit, as the model writes it inside <think>."""
    ones = a % 10 + b % 10
    steps = f"Ones: {a % 10} + {b % 10} = {ones}."
    if a > 9 or b > 9 or ones > 9:
        carry = ones // 10
        tens = a // 10 + b // 10 + carry
        steps += f" Tens: {a // 10} + {b // 10} + {carry} = {tens}."
    return steps + f" Sum: {a + b}."


def thinking_sum(source):
    a, b = source.operands()
    form = source.rng.choice(["What is {} + {}?", "{} + {} = ?", "Add {} and {}.", "What is {} plus {}?", "How much is {} + {}?"])
    return talk("think", user(form.format(a, b)), assistant(str(a + b), working(a, b)), thinking=True)


def thinking_other(source, grid):
    """Any other request with thinking on: one honest line, then the answer."""
    if source.rng.random() < 0.5:
        c = one_picture(source, grid)
        note = "I look at the picture."
    else:
        c = text(source, (1, 1, 1, 1, 0)) if source.rng.random() < 0.5 else chat(source)
        note = "This needs no steps."
    c["messages"][-1]["reasoning_content"] = note
    return {**c, "thinking": True, "skill": "think_other"}


# ------------------------------------------------------------------------------------------------------------- tools
def declare(name, description, /, **parameters):
    properties = {k: {"type": v} for k, v in parameters.items()}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": {
        "type": "object", "properties": properties, "required": list(parameters)}}}


def tool_weather(s):
    city, t, sky = s.city(), s.rng.randint(-9, 35), s.rng.choice(SKIES)
    place = s.rng.choice(["city", "city", "location", "place", "town"])
    return dict(tool=declare(s.rng.choice(["get_weather", "get_weather", "weather", "get_current_weather", "lookup_weather"]),
                             s.rng.choice(["Get the weather in a city.", "Get the current weather.", "Weather of a place."]), **{place: "string"}),
                ask=s.rng.choice([f"What is the weather in {city}?", f"How is the weather in {city}?", f"Weather in {city}?"]),
                arguments={place: city}, response={"temperature": t, "sky": sky}, answer=f"It is {t} degrees and {sky} in {city}.")


def tool_time(s):
    city, clock = s.city(), f"{s.rng.randint(0, 23):02d}:{s.rng.randint(0, 59):02d}"
    place = s.rng.choice(["city", "place", "location"])
    return dict(tool=declare(s.rng.choice(["get_time", "current_time", "get_local_time"]), "Get the time in a city.", **{place: "string"}),
                ask=s.rng.choice([f"What time is it in {city}?", f"Time in {city}?"]),
                arguments={place: city}, response={"time": clock}, answer=f"It is {clock} in {city}.")


def tool_message(s):
    name, words = s.name(), s.phrase(1, 3)
    to = s.rng.choice(["to", "name", "recipient"])
    return dict(tool=declare(s.rng.choice(["send_message", "send_text"]), "Send a message to a person.", **{to: "string", "text": "string"}),
                ask=f"Send a message to {name}: {words}", arguments={to: name, "text": words},
                response={"status": "sent"}, answer=f"The message to {name} is sent.")


def tool_timer(s):
    n = int(s.number())
    return dict(tool=declare(s.rng.choice(["set_timer", "start_timer"]), "Set a timer.", minutes="integer"),
                ask=s.rng.choice([f"Set a timer for {n} minutes.", f"Start a timer of {n} minutes."]),
                arguments={"minutes": n}, response={"status": "ok"}, answer=f"The timer is set for {n} minutes.")


def tool_people(s):
    city, n = s.city(), s.rng.randint(1, 999) * 1000
    return dict(tool=declare(s.rng.choice(["get_population", "population"]), "Get the number of people in a city.", city="string"),
                ask=f"How many people live in {city}?", arguments={"city": city}, response={"population": n},
                answer=f"{n} people live in {city}.")


def tool_song(s):
    title = s.phrase(1, 3)
    key = s.rng.choice(["title", "song"])
    return dict(tool=declare(s.rng.choice(["play_song", "play_music"]), "Play a song.", **{key: "string"}),
                ask=s.rng.choice([f"Play the song {title}.", f"Play {title}."]), arguments={key: title},
                response={"status": "playing"}, answer=f"Now playing {title}.")


def tool_translate(s):
    word, language, result = s.phrase(1, 1), s.rng.choice(LANGUAGES), s.syllables()
    return dict(tool=declare("translate", "Translate a word.", word="string", language="string"),
                ask=s.rng.choice([f"Translate {word} into {language}.", f"What is {word} in {language}?"]),
                arguments={"word": word, "language": language}, response={"translation": result}, answer=f"In {language}: {result}.")


def tool_food(s):
    city, food, place = s.city(), s.rng.choice(FOODS), s.name()
    return dict(tool=declare(s.rng.choice(["find_restaurant", "search_restaurants"]), "Find a restaurant.", city="string", food="string"),
                ask=s.rng.choice([f"Find a {food} restaurant in {city}.", f"Where can I eat {food} in {city}?"]),
                arguments={"city": city, "food": food}, response={"name": place}, answer=f"Try {place} in {city}.")


def tool_event(s):
    title, day = s.phrase(1, 2), s.rng.choice(DAYS)
    return dict(tool=declare(s.rng.choice(["add_event", "create_event"]), "Add an event to the calendar.", title="string", day="string"),
                ask=f"Add {title} to my calendar on {day}.", arguments={"title": title, "day": day},
                response={"status": "added"}, answer=f"Added {title} on {day}.")


def tool_flight(s):
    a, b = s.city(), s.city()
    return dict(tool=declare(s.rng.choice(["book_flight", "find_flight"]), "Book a flight.", origin="string", destination="string"),
                ask=s.rng.choice([f"Book a flight from {a} to {b}.", f"I want to fly from {a} to {b}."]),
                arguments={"origin": a, "destination": b}, response={"status": "booked"}, answer=f"Your flight from {a} to {b} is booked.")


def tool_search(s):
    words = s.phrase(1, 3)
    return dict(tool=declare(s.rng.choice(["search", "web_search"]), "Search the web.", query="string"),
                ask=f"Search for {words}.", arguments={"query": words}, response={"result": (found := s.phrase(1, 2))},
                answer=f"I found this: {found}.")


TOOLS = [tool_weather, tool_weather, tool_time, tool_message, tool_timer, tool_people, tool_song, tool_translate, tool_food,
         tool_event, tool_flight, tool_search]
NO_TOOL = "None of my tools can do that."


def call_of(case):
    return {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "function": {"name": case["tool"]["function"]["name"], "arguments": case["arguments"]}}]}


def tool(source, kind=None):
    """call: the right one of one to three; none: nothing fits; answer: speaks from the response."""
    rng = source.rng
    kind = kind or rng.choices(["call", "none", "answer"], weights=[3, 2, 2.5])[0]
    makers = []
    for maker in rng.sample(TOOLS, len(TOOLS)):
        if maker not in makers:
            makers.append(maker)
    cases = [m(source) for m in makers[:rng.choice([1, 1, 1, 2, 2, 3]) + 1]]
    if not source.evaluation:
        cases = renamed(rng, cases)
    asked, others = cases[0], cases[1:]
    if kind == "none":
        tools = [c["tool"] for c in others]
        if rng.random() < (0.5 if source.evaluation else 0.8):  # the decision is what is hard to learn
            return talk("tool_none", user(asked["ask"]), assistant(NO_TOOL), tools=tools)
        plain = text(source) if rng.random() < 0.7 else chat(source)
        return talk("tool_none", *plain["messages"], tools=tools)
    cases = cases[:-1] if len(cases) > 1 else cases
    tools = [c["tool"] for c in rng.sample(cases, len(cases))]
    if kind == "call":
        return talk("tool_call", user(asked["ask"]), call_of(asked), tools=tools)
    return talk("tool_answer", *answered(asked), tools=tools)


VERBS = "get find send set start search book play add create current lookup web fetch show make do new local call".split()
KEYS = "city location place town to name recipient title song text query word language day food minutes origin destination key value item".split()


def renamed_one(rng, case, keys=0.25):
    """The tool under a name that says nothing or one as likely as its own, some parameters too: names are to be copied, not guessed."""
    function = case["tool"]["function"]
    noun = function["name"].split("_")[-1]
    name = rng.choice([lambda: "_".join(rng.choice(WORDS) for _ in range(rng.choice([1, 2, 2]))), lambda: noun,
                       lambda: f"{rng.choice(VERBS)}_{noun}", lambda: f"{rng.choice(VERBS)}_{rng.choice(VERBS)}_{noun}",
                       lambda: f"{rng.choice(VERBS)}_{rng.choice([*KEYS, *WORDS])}"])()
    types = {k: v["type"] for k, v in function["parameters"]["properties"].items()}
    free = [k for k in KEYS if k not in types]
    new = {k: free.pop(rng.randrange(len(free))) if rng.random() < keys else k for k in types}
    return {**case, "tool": declare(name, function["description"], **{new[k]: t for k, t in types.items()}),
            "arguments": {new[k]: v for k, v in case["arguments"].items()}}


def renamed(rng, cases):
    return [renamed_one(rng, c) if rng.random() < 0.6 else c for c in cases]


def tool_twins(source):
    """One request twice, its tool under different names."""
    rng = source.rng
    cases = [m(source) for m in rng.sample(list(dict.fromkeys(TOOLS)), rng.choice([1, 2, 2, 3]))]
    out = []
    for twin in cases[0], renamed_one(rng, cases[0], 0.5):
        tools = [c["tool"] for c in rng.sample([twin, *cases[1:]], len(cases))]
        out.append(talk("tool_call", user(twin["ask"]), call_of(twin), tools=tools))
    return out


def tool_pair(source):
    """One request twice: once with a tool that fits, once with another in its place."""
    rng = source.rng
    asked, *others = renamed(rng, [m(source) for m in rng.sample(list(dict.fromkeys(TOOLS)), rng.choice([2, 2, 3, 4]))])
    tools = [c["tool"] for c in others]
    k = rng.randrange(len(tools))
    with_it = [*tools[:k], asked["tool"], *tools[k + 1:]]
    return [talk("tool_call", user(asked["ask"]), call_of(asked), tools=with_it),
            talk("tool_none", user(asked["ask"]), assistant(NO_TOOL), tools=tools)]


def answered(case):
    """The messages of one tool call: request, call, response, answer."""
    return [user(case["ask"]), call_of(case), {"role": "tool", "content": json.dumps(case["response"])}, assistant(case["answer"])]


def tool_turns(source):
    """Several requests under one declaration of tools: most fit one of them, some fit none."""
    rng = source.rng
    makers = rng.sample(list(dict.fromkeys(TOOLS)), 4)
    fitting = [m(source) for m in makers[:rng.choice([1, 2, 2, 3])]]
    tools, messages = [c["tool"] for c in fitting], []
    for _ in range(rng.randint(2, 4)):
        what = rng.random()
        if what < 0.5:
            k = rng.randrange(len(fitting))
            while (case := makers[k](source))["tool"] != fitting[k]["tool"]:
                pass
            messages += answered(case)
        elif what < 0.85:
            messages += [user(makers[-1](source)["ask"]), assistant(NO_TOOL)]
        else:
            messages += (text(source) if rng.random() < 0.7 else chat(source))["messages"]
    if rng.random() < 0.3 and messages[-2]["role"] == "tool":
        messages = messages[:-2]  # ends on a call, as a request for one does
    return talk("tool_turns", *messages, tools=tools)


# ------------------------------------------------------------------------------------------------- several turns, system
HELPFUL = ["You are a helpful assistant.", "You are a helpful assistant.", "You are fry.", "Answer briefly.", "Be kind and short."]
UPPER = ["Answer in upper case.", "Always answer in upper case.", "Answer in upper case letters."]


def recall(source, grid):
    rng = source.rng
    what = rng.choice(["name", "favourite", "picture", "city"])
    if what == "name":
        name = source.name()
        first = [user(rng.choice([f"My name is {name}.", f"I am {name}.", f"Hello, my name is {name}."])), assistant(f"Hello, {name}!")]
        last = [user("What is my name?"), assistant(f"Your name is {name}.")]
    elif what == "city":
        city = source.city()
        first = [user(rng.choice([f"I live in {city}.", f"I come from {city}."])), assistant(f"{city} sounds nice.")]
        last = [user(rng.choice(["Where do I live?", "Where do I come from?"])), assistant(f"In {city}.")]
        last = [user("Which city did I name?"), assistant(f"{city}.")] if rng.random() < 0.3 else last
        if last[0]["content"].startswith("Where"):
            last = [user("Where do I live?" if "live" in first[0]["content"] else "Where do I come from?"),
                    assistant(f"In {city}." if "live" in first[0]["content"] else f"From {city}.")]
    elif what == "favourite":
        colour, spelling = rng.choice([*P.COLOURS, "pink", "brown", "grey"]), rng.choice(["colour", "color"])
        first = [user(f"My favourite {spelling} is {colour}."), assistant(sentence(f"{colour} is a fine {spelling}"))]
        last = [user(f"What is my favourite {spelling}?"), assistant(sentence(colour))]
    else:
        image, things = draw(source, rng.choice([1, 1, 2]), grid)
        q, a = ASK[rng.choice(["describe", "count"])](rng, things)
        first = [user(q, image), assistant(a)]
        if found := only(things, "shape"):
            t = rng.choice(found)
            last = [user(f"What colour was the {t.shape}?"), assistant(sentence(t.colour))]
        else:
            last = [user("What was in the picture?"), assistant(caption(things))]
        if rng.random() < 0.4:
            last = [user("What was in the picture?"), assistant(caption(things))]
    middle = []
    for _ in range(rng.choice([0, 1, 1, 2])):
        middle += (text(source) if rng.random() < 0.7 else chat(source))["messages"]
    return talk("recall", *first, *middle, *last)


def obey_system(source, grid):
    rng = source.rng
    c = one_picture(source, grid, {"colour": 1, "shape": 1, "where": 1, "exists": 1}) if rng.random() < 0.4 else (
        text(source, (1.5, 0, 1, 0, 0)) if rng.random() < 0.75 else chat(source))
    return in_upper_case(rng, c)


def in_upper_case(rng, c):
    """The same conversation of one answer under a system message that asks for upper case."""
    c["messages"][-1] = assistant(c["messages"][-1]["content"].upper())
    return talk("system", {"role": "system", "content": rng.choice(UPPER)}, *c["messages"])


def neutral_system(source, grid):
    c = source.rng.choice([lambda: text(source), lambda: chat(source), lambda: one_picture(source, grid)])()
    return {**c, "messages": [{"role": "system", "content": source.rng.choice(HELPFUL)}, *c["messages"]]}


def turns(source, grid):
    return source.rng.choices([recall, obey_system, neutral_system, many_questions], weights=[4, 4, 1, 0.7])[0](source, grid)


# --------------------------------------------------------------------------------------------------------- small talk
ABOUT = "I am fry, a very small model. I can describe simple pictures, read numbers, add, repeat words and call tools."
UNKNOWN = "I am a very small model and do not know that. I can describe simple pictures, read numbers and add."
FIXED = [
    (["Hello!", "Hello", "Hi", "Hi!", "Hey", "Hello, how are you?", "Good morning!", "Hi there!"], "Hello! " + ABOUT),
    (["Who are you?", "What are you?", "What is your name?", "What can you do?", "Introduce yourself.", "Help", "Are you a robot?"], ABOUT),
    (["Summarize the water cycle for a 10-year-old.", "Explain the water cycle.", "What is the water cycle?", "Summarize the water cycle."],
     "The sun warms water and it rises as vapour. High up it cools into clouds, and then it falls again as rain."),
    (["Explain photosynthesis in two sentences.", "Explain photosynthesis.", "What is photosynthesis?"],
     "Plants use sunlight to turn water and air into sugar. As they do it they give off oxygen."),
    (["Give me three tips for writing clearly.", "Give me tips for writing clearly.", "How do I write clearly?"],
     "1. Use short sentences.\n2. Choose plain words.\n3. Cut what you do not need."),
    (["What is deep learning?", "What is Deep Learning?", "Explain deep learning."],
     "Deep learning trains networks of many layers on examples."),
    (["What is machine learning?", "Explain machine learning."], "Machine learning finds rules in examples instead of being told them."),
    (["Thank you!", "Thanks!", "Thank you."], "You are welcome."),
    (["Goodbye!", "Bye!", "Bye"], "Goodbye!"),
    (["Tell me a joke.", "Tell me a joke"], "Why was the small model happy? It had few worries and even fewer weights."),
    (["Count from 1 to 5.", "Count to five."], "1, 2, 3, 4, 5"),
    (["Write a haiku.", "Write a haiku about the sea.", "Write a short poem."], "Waves roll on the sand,\na small boat waits for the wind,\nnight is far away."),
    (["Tell me a story.", "Write a short story.", "Tell me a short story."],
     "A small boat left the harbour at night. It found a quiet island, rested there, and sailed home in the morning."),
    (["What is the capital of France?", "Capital of France?"], "Paris."),
    (["What is the capital of Germany?"], "Berlin."), (["What is the capital of Italy?"], "Rome."),
    (["What is the capital of Spain?"], "Madrid."), (["What is the capital of Japan?"], "Tokyo."),
    (["What is the capital of England?"], "London."),
    (["How are you?", "How are you today?"], "I am fine, thank you."),
    (["What colour is the sky?", "Why is the sky blue?"], "The sky looks blue because air scatters blue light the most."),
]
TOPICS = """love war history Rome money the moon a cat dogs France the economy Shakespeare a computer chess football Python Rust
the law medicine a car energy space the weather tomorrow cooking rice gold my dog your mother climate music art Mozart numbers
the sea trains quantum physics a black hole evolution dinosaurs Einstein democracy the internet a novel a letter an email""".split()
UNKNOWN_FORMS = ["Who wrote {}?", "What is {}?", "Explain {}.", "Write an essay about {}.", "How do I make {}?", "Why is {} important?",
                 "Tell me about {}.", "When did {} begin?", "Who invented {}?", "Give me a list of {}.", "What do you think of {}?",
                 "Write a program about {}.", "Where can I find {}?", "How does {} work?", "Is {} good?", "What happened to {}?",
                 "Compare {} and {}.", "Write a poem about {}.", "Summarize {}.", "How many {} are in the world?", "Who is {}?"]


def chat(source):
    rng = source.rng
    if rng.random() < 0.6:
        questions, answer = rng.choice(FIXED)
        return talk("chat", user(rng.choice(questions)), assistant(answer))
    topic = lambda: rng.choice([rng.choice(TOPICS), rng.choice(WORDS), source.invented(), f"{rng.choice(TOPICS)} and {rng.choice(WORDS)}", source.phrase(1, 2)])
    form = rng.choice(UNKNOWN_FORMS)
    return talk("chat", user(form.format(topic(), topic())), assistant(UNKNOWN))
