//! Holds the bus contract against `released.txt`, the contract as it was last released: services of other teams and
//! replicas of the version before must go on understanding each other. Fields and values are only added.
//!
//! `make release-contract` rewrites the file; that belongs to a release, after which what it lists cannot change.
#![expect(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto};

const HEAD: &str = "\
# The bus contract as it was last released. `make release-contract` rewrites this file when a release is made;
# in between it stays as it is, and `tests/released.rs` compares what `chat/v1` says today.
";
const RESERVED: &str = "reserved";

/// What stands under each number of a message or an enum.
type Numbers = BTreeMap<i32, String>;
/// Messages and enums by kind and full name.
type Contract = BTreeMap<String, Numbers>;

/// The contract of the `.proto` files.
fn present() -> Contract {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(root.join("chat/v1")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut contract = Contract::new();
    for file in protox::compile(&files, [root]).unwrap().file {
        let package = file.package().to_owned();
        for message in &file.message_type {
            add_message(&mut contract, &package, message);
        }
        for values in &file.enum_type {
            add_enum(&mut contract, &package, values);
        }
    }
    contract
}

fn add_message(contract: &mut Contract, parent: &str, message: &DescriptorProto) {
    let name = format!("{parent}.{}", message.name());
    let mut numbers = Numbers::new();
    for field in &message.field {
        numbers.insert(field.number(), described(field, message));
    }
    for range in &message.reserved_range {
        for number in range.start()..range.end() {
            numbers.insert(number, RESERVED.to_owned());
        }
    }
    for inner in &message.nested_type {
        add_message(contract, &name, inner);
    }
    for inner in &message.enum_type {
        add_enum(contract, &name, inner);
    }
    contract.insert(format!("message {name}"), numbers);
}

/// As the field is declared: label, type, name, and the oneof that it belongs to.
fn described(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().trim_start_matches('.').to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    let label = if field.label() == Label::Repeated {
        "repeated "
    } else if field.proto3_optional() {
        "optional "
    } else {
        ""
    };
    let mut text = format!("{label}{kind} {}", field.name());
    if let Some(index) = field.oneof_index.filter(|_| !field.proto3_optional()) {
        let oneof = message.oneof_decl[usize::try_from(index).unwrap()].name();
        write!(text, " in {oneof}").unwrap();
    }
    text
}

fn add_enum(contract: &mut Contract, parent: &str, values: &EnumDescriptorProto) {
    let mut numbers = Numbers::new();
    for value in &values.value {
        numbers.insert(value.number(), value.name().to_owned());
    }
    for range in &values.reserved_range {
        for number in range.start()..=range.end() {
            numbers.insert(number, RESERVED.to_owned());
        }
    }
    contract.insert(format!("enum {parent}.{}", values.name()), numbers);
}

fn written(contract: &Contract) -> String {
    let mut text = HEAD.to_owned();
    for (name, numbers) in contract {
        writeln!(text, "\n{name}").unwrap();
        for (number, what) in numbers {
            writeln!(text, "  {number} {what}").unwrap();
        }
    }
    text
}

fn parsed(text: &str) -> Contract {
    let mut contract = Contract::new();
    let mut name = "";
    for line in text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        if let Some(entry) = line.strip_prefix("  ") {
            let (number, what) = entry.split_once(' ').unwrap();
            let numbers = contract.get_mut(name).unwrap();
            numbers.insert(number.parse().unwrap(), what.to_owned());
        } else {
            name = line;
            contract.insert(name.to_owned(), Numbers::new());
        }
    }
    contract
}

/// What the present contract breaks of the released one, one line each.
fn breaks(released: &Contract, present: &Contract) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, numbers) in released {
        let Some(today) = present.get(name) else {
            broken.push(format!("{name} is gone"));
            continue;
        };
        for (number, was) in numbers {
            match today.get(number).map(String::as_str) {
                Some(is) if is == was => {}
                // What is given up keeps its number for ever.
                Some(RESERVED) => {}
                Some(is) => broken.push(format!("{name}: {number} was `{was}`, is `{is}`")),
                None => broken.push(format!(
                    "{name}: {number} was `{was}`, is neither there nor reserved"
                )),
            }
        }
    }
    broken
}

#[test]
fn the_contract_keeps_what_was_released() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("released.txt");
    let present = present();
    assert!(present.len() > 100, "{} messages and enums", present.len());
    if is_release() {
        std::fs::write(&file, written(&present)).unwrap();
        return;
    }
    let text = std::fs::read_to_string(&file).unwrap();
    let released = parsed(&text);
    assert_eq!(written(&released), text, "released.txt was written by hand");
    let broken = breaks(&released, &present);
    assert!(
        broken.is_empty(),
        "this breaks the released contract:\n{}",
        broken.join("\n")
    );
}

#[test]
fn each_kind_of_break_is_named() {
    let released = parsed(
        "message a.B\n  1 string id\n  2 bytes body in kind\n  3 string old\n  4 reserved\nenum a.E\n  1 E_ONE\nmessage a.C\n",
    );
    let same = |present: &str| breaks(&released, &parsed(present));
    let more = "message a.B\n  1 string id\n  2 bytes body in kind\n  3 reserved\n  4 reserved\n  5 string new\n\
        enum a.E\n  1 E_ONE\n  2 E_TWO\nmessage a.C\nmessage a.D\n";
    assert_eq!(same(more), [""; 0]);
    let less = "message a.B\n  1 int64 id\n  2 bytes body\n  4 string new\nenum a.E\n  1 E_FIRST\n";
    assert_eq!(
        same(less),
        [
            "enum a.E: 1 was `E_ONE`, is `E_FIRST`",
            "message a.B: 1 was `string id`, is `int64 id`",
            "message a.B: 2 was `bytes body in kind`, is `bytes body`",
            "message a.B: 3 was `string old`, is neither there nor reserved",
            "message a.B: 4 was `reserved`, is `string new`",
            "message a.C is gone",
        ]
    );
}

#[expect(clippy::disallowed_methods, reason = "a test without settings of its own")]
fn is_release() -> bool {
    std::env::var_os("PARLANCE_RELEASE_CONTRACT").is_some()
}
