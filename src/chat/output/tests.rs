//! Worked examples of every rule.

use serde_json::{Value, json};

use super::{OutputParser, Piece, ToolCallDelta};

/// Tools with a parameter of every type.
pub fn tools() -> Vec<Value> {
    let properties = json!({
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "ratio": {"type": "number"},
        "metric": {"type": "boolean"},
        "nothing": {"type": "null"},
        "list": {"type": "array", "items": {"type": "integer"}},
        "place": {"$ref": "#/$defs/place"},
        "unit": {"enum": ["C", "F"]},
        "level": {"enum": ["auto", 1, null]},
        "id": {"type": ["integer", "string"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "limit": {"type": "integer", "nullable": true},
        "untyped": {},
    });
    let parameters = json!({
        "type": "object", "properties": properties, "$defs": {"place": {"type": "object"}}
    });
    vec![
        json!({"type": "function", "function": {"name": "weather", "parameters": parameters}}),
        json!({"name": "now", "description": "a bare function"}),
    ]
}

fn reasoning(text: &str) -> Piece {
    Piece::Reasoning(text.to_owned())
}

fn content(text: &str) -> Piece {
    Piece::Content(text.to_owned())
}

fn call(index: usize, name: &str, arguments: &str) -> Piece {
    Piece::ToolCall(ToolCallDelta { index, name: Some(name.to_owned()), arguments: arguments.to_owned() })
}

/// Adjacent pieces of one kind joined.
pub fn joined(pieces: impl IntoIterator<Item = Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match (joined.last_mut(), piece) {
            (Some(Piece::Reasoning(last)), Piece::Reasoning(text)) => last.push_str(&text),
            (Some(Piece::Content(last)), Piece::Content(text)) => last.push_str(&text),
            (Some(Piece::ToolCall(last)), Piece::ToolCall(delta)) if last.index == delta.index => {
                assert_eq!(delta.name, None, "the name is in the first delta only");
                last.arguments.push_str(&delta.arguments);
            }
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

/// All pieces of an answer that comes in `chunks`, joined.
pub fn parse<'a>(
    mut parser: OutputParser,
    chunks: impl IntoIterator<Item = &'a str>,
    complete: bool,
) -> (Vec<Piece>, usize) {
    let mut pieces = Vec::new();
    for chunk in chunks {
        pieces.extend(parser.push(chunk));
    }
    pieces.extend(parser.finish(complete));
    (joined(pieces), parser.num_tool_calls())
}

/// The characters of a text, each as a chunk.
pub fn characters(text: &str) -> impl Iterator<Item = &str> {
    text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()])
}

fn check(opens_thinking: bool, tools: &[Value], answer: &str, expected: &[Piece]) {
    let new = || OutputParser::new(opens_thinking, tools);
    assert_eq!(parse(new(), [answer], true).0, expected, "{answer:?} at once");
    assert_eq!(parse(new(), characters(answer), true).0, expected, "{answer:?} in characters");
}

/// An answer of a model that does not think, to a request with tools.
fn answers(answer: &str, expected: &[Piece]) {
    check(false, &tools(), answer, expected);
}

/// An answer of a model that thinks, to a request with tools.
fn thinks(answer: &str, expected: &[Piece]) {
    check(true, &tools(), answer, expected);
}

/// The JSON that becomes of one parameter's text.
fn casts(key: &str, text: &str, expected: &str) {
    let answer =
        format!("<tool_call>\n<function=weather>\n<parameter={key}>\n{text}\n</parameter>\n</function>\n</tool_call>");
    answers(&answer, &[call(0, "weather", &format!("{{\"{key}\":{expected}}}"))]);
}

#[test]
fn text_is_content() {
    answers("", &[]);
    answers("\n", &[content("\n")]);
    answers("Hello!", &[content("Hello!")]);
    answers("  indented\n\nand so on \n", &[content("  indented\n\nand so on \n")]);
    answers("a < b, <b>bold</b>, Vec<f32>, <", &[content("a < b, <b>bold</b>, Vec<f32>, <")]);
}

#[test]
fn reasoning_ends_with_its_tag() {
    thinks("Let me see.\n</think>\n\nHello!", &[reasoning("Let me see."), content("Hello!")]);
    thinks("\n\nLet me\n\nsee.</think>Hello!", &[reasoning("Let me\n\nsee."), content("Hello!")]);
    thinks("\n</think>\n\n    let x;", &[content("    let x;")]);
    thinks("Let me see.\n</think>\n\n", &[reasoning("Let me see.")]);
    thinks("\n", &[]);
}

#[test]
fn reasoning_without_an_end_is_all_there_is() {
    thinks("Let me see. ", &[reasoning("Let me see. ")]);
    thinks("Let me see.</thi", &[reasoning("Let me see.</thi")]);
}

#[test]
fn an_answer_may_open_its_own_thinking() {
    answers("<think>\nHm.\n</think>\n\nHello!", &[reasoning("Hm."), content("Hello!")]);
    answers("\n <think>Hm.</think>Hello!", &[reasoning("Hm."), content("Hello!")]);
    thinks("<think>\nHm.\n</think>\n\nHello!", &[reasoning("Hm."), content("Hello!")]);
    answers("<think>\n\n</think>\n\n<think>\nHm.\n</think>\n\nHello!", &[reasoning("Hm."), content("Hello!")]);
}

#[test]
fn an_end_of_thinking_that_was_not_open_is_dropped() {
    thinks("Hm.</think>Hello\n</think>\n\nthere", &[reasoning("Hm."), content("Hello\n\nthere")]);
    answers("Hello</think>", &[content("Hello")]);
    check(false, &[], "Hello\n</think>\n", &[content("Hello\n")]);
}

#[test]
fn thinking_tags_behind_text_are_text_in_pairs() {
    answers("Write `<think>` and `</think>`.</think>", &[content("Write `<think>` and `</think>`.")]);
    thinks("A `<think>` here.\n</think>\n\nYes.", &[reasoning("A `<think>` here."), content("Yes.")]);
}

#[test]
fn a_call_is_a_call() {
    let one = "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n\
               </parameter>\n</function>\n</tool_call>";
    answers(one, &[call(0, "weather", r#"{"city":"Paris","days":3}"#)]);
    let two = format!("I look.\n\n{one}\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n");
    let weather = call(0, "weather", r#"{"city":"Paris","days":3}"#);
    answers(&two, &[content("I look."), weather.clone(), call(1, "now", "{}")]);
    thinks(&format!("Hm.\n</think>\n\n{one}"), &[reasoning("Hm."), weather]);
}

#[test]
fn whitespace_between_tags_may_be_missing_or_more() {
    let expected = [call(0, "weather", r#"{"city":"Paris","days":3}"#)];
    answers(
        "<tool_call><function=weather><parameter=city>Paris</parameter><parameter=days>3</parameter></function></tool_call>",
        &expected,
    );
    answers(
        "<tool_call>\n\n  <function=weather>\n\n  <parameter=city>\nParis</parameter>\n \n<parameter=days> 3 \n\n\
         </parameter>\n\n</function>\n\n</tool_call>\n\n",
        &expected,
    );
}

#[test]
fn one_newline_on_each_side_of_a_value_belongs_to_the_tags() {
    casts("city", "\nParis\n", r#""\nParis\n""#);
    casts("city", "", r#""""#);
    answers(
        "<tool_call><function=weather><parameter=city>\n</parameter></function></tool_call>",
        &[call(0, "weather", r#"{"city":""}"#)],
    );
}

#[test]
fn several_functions_in_one_tool_call_are_several_calls() {
    answers(
        "<tool_call>\n<function=now>\n</function>\n<function=other>\n</function>\n</tool_call>",
        &[call(0, "now", "{}"), call(1, "other", "{}")],
    );
}

#[test]
fn text_between_calls_stays_where_it_stood() {
    let now = "<tool_call>\n<function=now>\n</function>\n</tool_call>";
    answers(
        &format!("First.\n\n{now}\n\nThen.\n{now}\n\nDone.\n"),
        &[content("First."), call(0, "now", "{}"), content("\n\nThen."), call(1, "now", "{}"), content("\n\nDone.\n")],
    );
    answers(&format!("{now}\n\nDone."), &[call(0, "now", "{}"), content("Done.")]);
}

#[test]
fn a_call_inside_thinking_is_found() {
    let now = "<tool_call>\n<function=now>\n</function>\n</tool_call>";
    thinks(
        &format!("Hm.\n{now}\nSo.\n</think>\n\nHello!"),
        &[reasoning("Hm."), call(0, "now", "{}"), reasoning("\nSo."), content("Hello!")],
    );
    thinks(now, &[call(0, "now", "{}")]);
    thinks(
        "Use <tool_call> and </tool_call>. <function=now> too.\n</think>\n\nHello!",
        &[reasoning("Use <tool_call> and </tool_call>. <function=now> too."), content("Hello!")],
    );
}

#[test]
fn a_malformed_call_is_text() {
    for answer in [
        "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n<function>\n</function>\n</tool_call>",
        "<tool_call>\n<function=>\n</function>\n</tool_call>",
        "<tool_call>\n<function=two words>\n</tool_call>",
        "<tool_call>\n<function=now",
        "<tool_call>",
        "x <function=now>\n</function>",
    ] {
        answers(answer, &[content(answer)]);
    }
    let (answer, after) = ("<tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>", call(0, "now", "{}"));
    answers(answer, &[content("<tool_call>"), after]);
    thinks("<tool_call>\n</think>\n\nHello!", &[reasoning("<tool_call>"), content("Hello!")]);
}

#[test]
fn names_and_spaces_that_are_too_long_make_no_call() {
    let long = "x".repeat(257);
    let (name, space) = (format!("<tool_call><function={long}>"), format!("<tool_call>{}<function=f>", " ".repeat(65)));
    answers(&name, &[content(&name)]);
    answers(&space, &[content(&space)]);
    let fits = format!("<tool_call>{}<function={}>", " ".repeat(64), &long[1..]);
    answers(&fits, &[call(0, &long[1..], "{}")]);
}

#[test]
fn a_forgotten_tool_call_tag_is_forgiven_where_the_function_is_declared() {
    let now = "<function=now>\n</function>\n</tool_call>";
    answers(now, &[call(0, "now", "{}")]);
    answers(&format!("I look.\n\n{now}"), &[content("I look."), call(0, "now", "{}")]);
    answers("<function=other>\n</function>", &[content("<function=other>\n</function>")]);
}

#[test]
fn forgotten_closing_tags_are_forgiven() {
    answers(
        "<tool_call>\n<function=now>\n</tool_call>\n<tool_call>\n<function=now>\n<tool_call>\n<function=now>\n\
         </function>\nDone.",
        &[call(0, "now", "{}"), call(1, "now", "{}"), call(2, "now", "{}"), content("Done.")],
    );
    thinks("<tool_call>\n<function=now>\n</think>\n\nHello!", &[call(0, "now", "{}"), content("Hello!")]);
}

#[test]
fn junk_between_parameters_is_ignored() {
    answers(
        "<tool_call>\n<function=weather>\nhm < <b> <parameter=>\n<parameter=days>\n3\n</parameter>\n</parameter>x\n\
         <parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>",
        &[call(0, "weather", r#"{"days":3,"city":"Paris"}"#)],
    );
}

#[test]
fn the_first_value_of_a_repeated_key_counts() {
    answers(
        "<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=city>\nRome\n</parameter>\n\
         <parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        &[call(0, "weather", r#"{"city":"Paris","days":3}"#)],
    );
}

#[test]
fn without_tools_tool_tags_are_text() {
    let answer = "I look.\n\n<tool_call>\n<function=now>\n</function>\n</tool_call>\n";
    check(false, &[], answer, &[content(answer)]);
    check(true, &[], &format!("Hm.\n</think>\n\n{answer}"), &[reasoning("Hm."), content(answer)]);
}

#[test]
fn values_are_cast_by_their_schema() {
    casts("city", "5", r#""5""#);
    casts("days", " 5 ", "5");
    casts("days", "5.0", "5");
    casts("days", "-123456789012345678901234567890", "-123456789012345678901234567890");
    casts("days", "5.5", r#""5.5""#);
    casts("ratio", "0.1", "0.1");
    casts("ratio", "3", "3");
    casts("ratio", "nan", r#""nan""#);
    casts("metric", "true", "true");
    casts("metric", "False", "false");
    casts("metric", "yes", r#""yes""#);
    casts("nothing", "null", "null");
    casts("nothing", "None", "null");
    casts("list", "[1, 2.50]", "[1, 2.50]");
    casts("list", "{}", r#""{}""#);
    casts("place", "{\n  \"a\": [\"b\"]\n}", "{\n  \"a\": [\"b\"]\n}");
    casts("place", "{'a': 1}", r#""{'a': 1}""#);
}

#[test]
fn alternatives_are_tried_in_their_order() {
    casts("id", "5", "5");
    casts("id", "five", r#""five""#);
    casts("unit", "C", r#""C""#);
    casts("level", "auto", r#""auto""#);
    casts("level", "1", "1");
    casts("level", "null", "null");
    casts("level", "2", r#""2""#);
    casts("limit", "7", "7");
    casts("limit", "null", "null");
    casts("untyped", "7", r#""7""#);
    casts("undeclared", "7", r#""7""#);
}

#[test]
fn null_goes_before_string() {
    casts("note", "null", "null");
    casts("note", "nul", r#""nul""#);
    casts("note", "nullify", r#""nullify""#);
    casts("note", "", r#""""#);
}

#[test]
fn a_schema_that_refers_to_itself_is_read() {
    let loops = json!({"$ref": "#/$defs/a"});
    let both = json!({"anyOf": [loops, loops, {"type": "integer"}, loops]});
    let tools = [json!({"name": "f", "parameters": {"properties": {"x": both.clone()}, "$defs": {"a": both}}})];
    let answer = "<tool_call><function=f><parameter=x>1</parameter></function></tool_call>";
    check(false, &tools, answer, &[call(0, "f", r#"{"x":1}"#)]);
}

#[test]
fn tools_of_any_shape_are_read() {
    let odd =
        [json!(null), json!([]), json!({"function": 3}), json!({"name": 5}), json!({"name": "f", "parameters": 7})];
    let answer = "<tool_call><function=f><parameter=x>1</parameter></function></tool_call>";
    check(false, &odd, answer, &[call(0, "f", r#"{"x":"1"}"#)]);
}

#[test]
fn a_string_is_passed_on_as_it_comes() {
    let mut parser = OutputParser::new(false, &tools());
    let delta = |name: Option<&str>, arguments: &str| {
        let (name, arguments) = (name.map(str::to_owned), arguments.to_owned());
        vec![Piece::ToolCall(ToolCallDelta { index: 0, name, arguments })]
    };
    assert_eq!(parser.push("<tool_call>\n<function=weather"), []);
    assert_eq!(parser.push(">\n<parameter=city>"), delta(Some("weather"), "{"));
    assert_eq!(parser.push("\nSaint-"), delta(None, r#""city":"Saint-"#));
    assert_eq!(parser.push("\"É"), delta(None, r#"\"É"#));
    assert_eq!(parser.push("\n"), []);
    assert_eq!(parser.push("</param"), []);
    assert_eq!(parser.push("s"), delta(None, r"\n</params"));
    assert_eq!(parser.push("\n</parameter>\n<parameter=days>\n1"), delta(None, "\""));
    assert_eq!(parser.push("2\n</parameter>"), delta(None, r#","days":12"#));
    assert_eq!(parser.push("\n</function>\n</tool_call>"), delta(None, "}"));
    assert_eq!(parser.finish(true), []);
}

#[test]
fn text_is_passed_on_as_it_comes() {
    let mut parser = OutputParser::new(true, &tools());
    assert_eq!(parser.push("Let"), [reasoning("Let")]);
    assert_eq!(parser.push(" me "), [reasoning(" me")]);
    assert_eq!(parser.push("see <"), [reasoning(" see")]);
    assert_eq!(parser.push("/th"), []);
    assert_eq!(parser.push("e>"), [reasoning(" </the>")]);
    assert_eq!(parser.push("\n</think>\n\nHello"), [content("Hello")]);
    let mut plain = OutputParser::new(false, &[]);
    assert_eq!(plain.push("Hello \n"), [content("Hello \n")]);
}

#[test]
fn a_complete_answer_closes_its_call() {
    let begun = "<tool_call>\n<function=weather>\n<parameter=";
    answers(begun, &[call(0, "weather", "{}")]);
    answers(&format!("{begun}city>"), &[call(0, "weather", r#"{"city":""}"#)]);
    answers(&format!("{begun}city>\nPar"), &[call(0, "weather", r#"{"city":"Par"}"#)]);
    answers(&format!("{begun}city>\nParis\n</para"), &[call(0, "weather", r#"{"city":"Paris"}"#)]);
    answers(&format!("{begun}days>\n1"), &[call(0, "weather", r#"{"days":1}"#)]);
}

#[test]
fn an_answer_that_was_cut_off_leaves_its_call_as_it_is() {
    let begun = "<tool_call>\n<function=weather>\n<parameter=";
    for (answer, expected) in [
        (format!("{begun}city>\nPar"), call(0, "weather", r#"{"city":"Par"#)),
        (format!("{begun}city>\nParis\n</para"), call(0, "weather", r#"{"city":"Paris"#)),
        (format!("{begun}days>\n1"), call(0, "weather", "{")),
    ] {
        assert_eq!(parse(OutputParser::new(false, &tools()), [answer.as_str()], false), (vec![expected], 1));
    }
}

#[test]
fn half_a_tag_of_an_answer_that_was_cut_off_is_dropped() {
    for answer in ["I look.\n\n<tool_ca", "I look.\n\n<tool_call>\n<function=weath", "I look. </thi", "I look.\n\n"] {
        let (pieces, num_tool_calls) = parse(OutputParser::new(false, &tools()), [answer], false);
        assert_eq!((pieces, num_tool_calls), (vec![content("I look.")], 0), "{answer:?}");
    }
}
