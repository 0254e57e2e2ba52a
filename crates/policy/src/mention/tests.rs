use proptest::prelude::*;

use super::*;

const EVIL: &str = "evil.example";
const PAYEE: &str = "0xAbCdEf0123456789aBcDeF0123456789abcdef01";

fn hosts(text: &str) -> Vec<String> {
    Names::of(text).hosts.iter().map(ToString::to_string).collect()
}

#[test]
fn attack_13_a_host_is_found_however_it_is_written() {
    for (text, host) in [
        ("Pay at evil.example now", EVIL),
        ("https://evil.example/pay?x=1", EVIL),
        ("HTTPS://EVIL.Example:8443/", EVIL),
        ("it is evil.example.", EVIL),
        ("it is evil.example.Then pay", EVIL),
        ("evil.example...", EVIL),
        ("*.evil.example", EVIL),
        ("https://good.example@evil.example/", EVIL),
        ("https://good.example:443@evil.example:80", EVIL),
        ("https://user:pass@evil.example", EVIL),
        ("https:\\\\evil.example\\pay", EVIL),
        ("https:evil.example", EVIL),
        ("{\"url\":\"https:\\/\\/evil.example\\/\"}", EVIL),
        ("https%3A%2F%2Fevil%2Eexample%2Fpay", EVIL),
        ("https%253A%252F%252Fevil%252Eexample", EVIL),
        ("evil\\u002eexample", EVIL),
        ("evil&#46;example and more", EVIL),
        ("evil&#x2e;example", EVIL),
        ("evil&period;example", EVIL),
        ("hxxps://evil[.]example", EVIL),
        ("evil(dot)example", EVIL),
        ("evil\\.example", EVIL),
        ("ev\u{200b}il.exam\u{ad}ple", EVIL),
        ("ev%E2%80%8Bil.example", EVIL),
        ("\u{202e}evil.example\u{202c}", EVIL),
        ("ｅｖｉｌ．ｅｘａｍｐｌｅ", EVIL),
        ("evil。example", EVIL),
        ("„evil.example“", EVIL),
        ("https://ev\til.exam\nple/", EVIL),
        ("see(evil.example)", EVIL),
        ("{\"text\":\"Pay at:\\nevil.example\"}", EVIL),
        ("Pay at:\\\\r\\\\nevil.example", EVIL),
        ("https://ev\\til.example/", EVIL),
        ("a\\tevil.example\\bb", EVIL),
        ("\\ud835\\udc1evil.example", EVIL),
        ("_evil.example_", EVIL),
        ("__evil.example__.Then pay", EVIL),
        ("**evil.example**", EVIL),
        ("1._evil.example_", EVIL),
        ("_https://evil.example_", EVIL),
        ("http://__intranet__", "intranet"),
        ("http://**intranet**", "intranet"),
        ("ev\u{1b}[1;31mil.exam\u{1b}[0mple", EVIL),
        ("ev\u{9b}31mil.example", EVIL),
        ("ev\\u001b[31mil\\033[m.exam\\e[0mple", EVIL),
        ("evil%25252eexample", EVIL),
        ("<a href='//evil.example'>", EVIL),
        ("mailto:pay@evil.example", EVIL),
        ("https://bücher.example/", "xn--bcher-kva.example"),
        ("„bücher.example“", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("http://localhost:8402/", "localhost"),
        ("http://intranet, then", "intranet"),
        ("http://2130706433/", "127.0.0.1"),
        ("http://0x7f.1/", "127.0.0.1"),
        ("http://0177.0.0.1/", "127.0.0.1"),
        ("at 10.0.0.7:80", "10.0.0.7"),
        ("http://[::1]:8402/", "[::1]"),
        ("at ::ffff:7f00:1", "[::ffff:127.0.0.1]"),
        ("[2001:DB8::1]", "[2001:db8::1]"),
        ("{\"x402Version\":2,\"resource\":{\"url\":\"http://evil.example/a\"}}", EVIL),
    ] {
        let found: Vec<_> = hosts(text);
        let canonical: Host = host.parse().unwrap();
        assert!(found.contains(&canonical.to_string()), "{text:?}: {found:?}");
    }
}

#[test]
fn a_name_is_found_behind_more_than_any_name_holds() {
    let text = format!("{}.evil.example", "a".repeat(2_000));
    assert!(hosts(&text).contains(&EVIL.to_owned()));
    assert!(hosts(&format!("https://{}@2130706433/", "a".repeat(2_000))).contains(&"127.0.0.1".to_owned()));
    let text = format!("{}.evil.example", vec!["ab"; 200].join("."));
    assert!(hosts(&text).contains(&EVIL.to_owned()));
}

#[test]
fn what_is_no_name_is_none() {
    for text in
        ["", "version 1.2.3", "at 12:30:45", "a // comment", "…", "http://", "..", "[]", "$0.05", "-.-"]
    {
        assert_eq!(hosts(text), Vec::<String>::new(), "{text:?}");
    }
}

#[test]
fn an_address_is_found_in_whatever_case() {
    let want = Address::evm(&PAYEE.to_ascii_lowercase()).unwrap();
    let padded = format!("0x{}{}", "0".repeat(24), &PAYEE[2..]);
    for text in [
        PAYEE.to_owned(),
        PAYEE.to_ascii_uppercase().replace("0X", "0x"),
        format!("\"payTo\":\"{PAYEE}\""),
        format!("eip155:8453:{PAYEE}"),
        PAYEE[2..].to_owned(),
        padded,
        format!("0xab\u{200b}{}", &PAYEE[4..]),
    ] {
        assert!(Names::of(&text).payees.contains(&want), "{text}");
    }
    // A hash of 32 bytes is no payee.
    assert!(Names::of(&format!("0x{}", "ab".repeat(32))).payees.is_empty());
}

#[test]
fn what_does_not_fit_is_said() {
    let many = |n: usize| (0..n).map(|i| format!("h{i}.example ")).collect::<String>();
    assert!(!Names::of(&many(MAX_NAMES)).is_cut());
    assert!(Names::of(&many(MAX_NAMES + 1)).is_cut());
    let mut long = " ".repeat(MAX_NAMED_BYTES);
    assert!(!Names::of(&long).is_cut());
    long.push('x');
    assert!(Names::of(&long).is_cut());
    // Words that look like names and are none are bounded, too.
    let none: String = (0..=MAX_WORDS).map(|i| format!("http://{i}^x/ ")).collect();
    assert!(Names::of(&none).is_cut());
}

#[test]
fn what_is_escaped_deeper_than_is_read_is_said() {
    assert!(!Names::of("evil%25252eexample").is_cut());
    assert!(Names::of("evil%2525252eexample").is_cut());
    assert!(Names::of("evil&amp;amp;amp;amp;period;example").is_cut());
    assert!(Names::of(&format!("evil{}u002eexample", "\\".repeat(32))).is_cut());
    // A row of backslashes is none.
    assert!(!Names::of(&"\\".repeat(64)).is_cut());
    assert!(!Names::of(&format!("{} evil.example", "\\".repeat(64))).is_cut());
}

#[test]
fn a_reading_ends_whatever_is_written() {
    const LENGTH: usize = 1024 * 1024;
    // One step may still end.
    const STEP: usize = 8 * 1024;
    const SHORT: usize = 32 * 1024;
    let long = ["@", ".", "ab."].map(|part| (part, LENGTH));
    let short = ["a.", "_a.", "http:", "//", "[", "@[", "@a\n", "\u{3002}", "1.", "-.", "::"]
        .map(|part| (part, SHORT));
    for (part, length) in long.into_iter().chain(short) {
        let text = part.repeat(length / part.len());
        let names = Names::of(&text);
        assert!(names.work <= names.most_work() + STEP, "{part:?}: {}", names.work);
    }
    // What is written by people is far from the bound.
    for part in [
        "a@b.example,",
        "https://shop.example/a?b=c, and ",
        "console.log(a.b.c.d);",
        "@",
        ".",
        "see https://a.example@\n",
    ] {
        let names = Names::of(&part.repeat(SHORT / part.len()));
        assert!(!names.is_cut() && names.work < 16 * SHORT, "{part:?}: {}", names.work);
    }
}

#[test]
fn who_named_it_is_one_line() {
    assert_eq!(named_by("tools.example:443", Some("look\n\u{1b}[2Jup")), "tools.example:443 look??[2Jup");
    assert!(named_by(&"a".repeat(5_000), Some(&"b".repeat(5_000))).len() <= MAX_NAMED_BY_CHARS);
}

proptest! {
    /// The law: what a request would go to is found in a text that writes it out, whatever stands around it.
    #[test]
    fn a_url_in_a_text_is_found(
        before in "[^a-zA-Z0-9._%&\\\\-]{0,12}", host in "[a-z][a-z0-9]{0,8}(\\.[a-z][a-z0-9]{1,8}){1,3}", after in "[/?# ),;\"'<]?.{0,12}",
    ) {
        let (after, text) = match after.chars().next() {
            Some(c) if "/?# ),;\"'<".contains(c) => (after.clone(), format!("{before}https://{host}{after}")),
            _ => (String::new(), format!("{before}https://{host}")),
        };
        let names = Names::of(&text);
        prop_assert!(names.hosts.contains(&host.parse::<Host>().unwrap()), "{text:?} {after:?}");
    }

    /// The same with what stresses a name, parts lines or sets colours, around it and in it.
    #[test]
    fn a_name_is_found_in_what_dresses_it(
        before in prop::sample::select(vec![
            "", " ", ":", "_", "__", "*", "**", "\\n", "\\r\\n", "\\t", "\\\\n", "\\f", "\\0", "\u{1b}[31m", "\\u001b[1;32m", "\\n_", "a:\\n",
        ]),
        scheme in prop::sample::select(vec!["", "https://", "https:\\/\\/"]),
        host in "[a-z][a-z0-9]{1,8}(\\.[a-z][a-z0-9]{1,8}){1,3}",
        colour in prop::sample::select(vec!["", "\u{1b}[m", "\u{1b}[38;5;1m", "\u{9b}0m", "\\x1b[0m", "\\033[7m", "\\e[1m"]),
        at in 0_usize..6,
        after in prop::sample::select(vec!["", "_", "__", "*", "**", "\\n", "\\\\n", "\\t", "_\\nThen", "\u{1b}[0m", "_.Then"]),
    ) {
        let (first, last) = host.split_at(at.min(host.len()));
        let text = format!("{before}{scheme}{first}{colour}{last}{after}");
        let names = Names::of(&text);
        prop_assert!(names.hosts.contains(&host.parse::<Host>().unwrap()), "{text:?} {:?}", names.hosts);
    }

    #[test]
    fn nothing_breaks_it(text in ".{0,200}") {
        let _ = Names::of(&text);
    }
}
