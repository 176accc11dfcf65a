use std::path::{Path, PathBuf};

use moat_contracts::{Action, Detector, Kind, Method};
use proptest::prelude::*;

use crate::schema::Shape;
use crate::settings::example_recipe;
use crate::{
    EnginePlace, Faults, SHIPPED, Settings, SourceKind, check_machine, load_either, parse, parse_curation,
    parse_recipe, parse_sweep,
};

const WRITTEN_OUT: &str = include_str!("../../../config/moat.toml");

/// What is shown of each fault.
fn shown(faults: &Faults) -> Vec<String> {
    faults.0.iter().map(ToString::to_string).collect()
}

/// The text with its commented-out keys in force: a `#` right before a key or a table, no space between.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Every key of the shape that is in the text's tables and not in `text`.
fn missing(text: &str, shape: &Shape) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap();
    let mut keys = Vec::new();
    shape.leaves("", &mut keys);
    let there = |path: &String| {
        let mut value = &toml::Value::Table(table.clone());
        for part in path.split('.') {
            let table = match value {
                toml::Value::Array(items) => &items[0],
                other => other,
            };
            let Some(next) = table.get(part) else { return false };
            value = next;
        }
        true
    };
    keys.into_iter().filter(|path| !there(path)).collect()
}

#[test]
fn the_configuration_file_writes_every_default_out() {
    let settings = parse(WRITTEN_OUT).unwrap();
    let default = Settings::default();
    let lines = |settings: &Settings| toml::to_string(settings).unwrap().lines().map(str::to_owned).collect();
    let (found, expected): (Vec<_>, Vec<_>) = (lines(&settings), lines(&default));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found, expected, "config/moat.toml differs from the default");
    }
    assert_eq!(settings, default);

    let shape = Shape::of(&Settings::example()).unwrap();
    let whole = uncommented(WRITTEN_OUT);
    assert_eq!(missing(&whole, &shape), Vec::<String>::new());
    let mut sources = parse(&whole).unwrap().source;
    assert_eq!(
        (sources[0].name.as_str(), sources[0].path.as_path()),
        ("handbook", Path::new("/srv/handbook"))
    );
    (sources[0].name, sources[0].path) = (String::new(), PathBuf::new());
    assert_eq!(sources, Settings::example().source);
}

#[test]
fn each_key_of_the_configuration_file_is_explained() {
    for (index, line) in WRITTEN_OUT.lines().enumerate() {
        let key = line.trim_start_matches('#').starts_with(|letter: char| letter.is_ascii_alphabetic());
        assert!(!key || line.contains("  # "), "line {}: {line}", index + 1);
        assert!(line.chars().count() <= 130, "line {} is too long", index + 1);
    }
}

#[test]
fn the_recipes_that_are_shipped_are_sound_and_one_writes_every_default_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/recipes");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        load_either(&path).unwrap_or_else(|error| panic!("{error}"));
        seen += 1;
    }
    assert!(seen >= 2);
    let text = std::fs::read_to_string(folder.join("lora.toml")).unwrap();
    let mut recipe = parse_recipe(&text).unwrap();
    assert_eq!(recipe.name, "lora");
    recipe.name = "unnamed".to_owned();
    assert_eq!(recipe, moat_contracts::Recipe::default());
    let whole = uncommented(&text);
    assert_eq!(missing(&whole, &Shape::of(&example_recipe()).unwrap()), Vec::<String>::new());
    parse_recipe(&whole).unwrap();
}

#[test]
fn nothing_said_means_the_defaults() {
    assert_eq!(parse("").unwrap(), Settings::default());
    assert_eq!(Settings::default().faults(), []);
    assert_eq!(parse_recipe("# nothing\n").unwrap(), moat_contracts::Recipe::default());
}

#[test]
fn what_is_said_arrives() {
    let settings = parse(
        r#"
training.threads = 0x10
[[source]]
name = "wiki"
kind = "git"
path = "/srv/wiki"
branch = "main"
[[source]]
name = "notes"
path = "/srv/notes"
max_bytes = 1_000
[curation.quality.code]
max_mean_line = 120
[curation.detect.labels]
PHONE = "off"
"#,
    )
    .unwrap();
    assert_eq!(settings.training.threads, 16);
    assert_eq!(
        settings.source.iter().map(|source| source.kind).collect::<Vec<_>>(),
        [SourceKind::Git, SourceKind::Folder]
    );
    assert_eq!((settings.source[1].max_bytes, settings.source[1].rescan_seconds), (1000, 300));
    assert_eq!(settings.curation.quality.code.max_mean_line, 120.0);
    assert_eq!(settings.curation.detect.action(Detector::Phone), Action::Off);
    let recipe = parse_recipe("selection.kinds = [\"code\", \"prose\"]\ntrain.method = \"full\"\n").unwrap();
    assert_eq!((recipe.selection.kinds, recipe.train.method), (vec![Kind::Code, Kind::Prose], Method::Full));
}

#[test]
fn changes_of_rules_are_what_stands_there_and_are_held_against_the_same_keys() {
    let text = "[curation.quality.prose]\nmin_words = 5\n[curation.detect.labels]\nPHONE = \"off\"\n";
    let changes = parse_curation(text).unwrap();
    let expected =
        serde_json::json!({"quality": {"prose": {"min_words": 5}}, "detect": {"labels": {"PHONE": "off"}}});
    assert_eq!(changes, expected);
    let faults = shown(&parse_curation("[curation.quality.prose]\nmin_word = 5\n").unwrap_err());
    assert_eq!(
        faults,
        ["2:1: curation.quality.prose.min_word: there is no such key: did you mean `min_words`?"]
    );
    assert!(parse_curation("[review]\nmargin = 0.1\n").is_err());
    assert!(
        shown(&parse("[review]\nmargin = 2\n").unwrap_err())[0].starts_with("2:10: review.margin: must be")
    );
}

#[test]
fn every_fault_comes_at_once_with_its_place() {
    let text = r#"trainning = 1
[daemon]
state = "moat"
threads = 2
[training]
threads = "two"
nice = 300
[[source]]
name = "äü wiki"
kind = "gti"
path = "/srv/wiki"
max_bytes = -1
[[source]]
name = "notes"
  hiden = true
[[source]]
name = "notes"
path = "/srv/wiki"
branch = "main"
settle_seconds = 1.5
[curation.quality.prose]
min_word = 3
max_short_lines = 1.5
[curation.detect.labels]
EMIAL = "off"
PHONE = "delete"
"#;
    let expected = [
        "1:1: trainning: there is no such key: did you mean `training`?",
        "3:9: daemon.state: must be an absolute path",
        "4:1: daemon.threads: there is no such key here: did you mean `training.threads`?",
        "6:11: training.threads: expected a whole number, 0 or more, found text",
        "7:8: training.nice: 300 is too large",
        "9:8: source[0].name: must have at most 64 characters, each a letter, a digit, `-`, `_` or `.`",
        "10:8: source[0].kind: must be one of `folder`, `git`, not `gti`",
        "12:13: source[0].max_bytes: expected a whole number, 0 or more, found one that is negative or too large",
        "13:1: source[1].path: must be given: the absolute path of the folder or repository",
        "15:3: source[1].hiden: there is no such key: did you mean `hidden`?",
        "17:8: source[2].name: is also the name of source[1]: each source needs its own",
        "19:10: source[2].branch: is only for kind = \"git\"",
        "20:18: source[2].settle_seconds: expected a whole number, 0 or more, found one with a fraction",
        "22:1: curation.quality.prose.min_word: there is no such key: did you mean `min_words`?",
        "23:19: curation.quality.prose.max_short_lines: is a share and must be at most 1",
        "25:1: curation.detect.labels.EMIAL: there is no such key: did you mean `EMAIL`?",
        "26:9: curation.detect.labels.PHONE: must be one of `redact`, `drop`, `off`, not `delete`",
    ];
    let found = shown(&parse(text).unwrap_err());
    assert_eq!(found, expected, "{found:#?}");
}

#[test]
fn broken_toml_is_told_line_by_line_beside_the_rest() {
    let found = parse(
        "[daemon]\nstate = \nruntime = \"/run/moat\nengine = 3\n[training]\nthreads = 1 2\nnice = 25\n",
    );
    let faults = found.unwrap_err();
    let places: Vec<_> = faults.0.iter().map(|fault| (fault.line, fault.key.as_str())).collect();
    assert_eq!(places, [(2, ""), (3, ""), (4, "daemon.engine"), (6, ""), (7, "training.nice")], "{faults}");
    let twice = shown(&parse("[daemon]\nstate = \"/a\"\nstate = \"/b\"\n").unwrap_err());
    assert_eq!(twice, ["3:1: duplicate key"]);
}

#[test]
fn columns_count_characters() {
    let faults = parse("daemon = { state = \"/ä/ö\", engin = \"\" }\n").unwrap_err();
    assert_eq!(shown(&faults), ["1:28: daemon.engin: there is no such key: did you mean `engine`?"]);
}

#[test]
fn recipe_faults_have_their_places() {
    let text = "name = \"a/b\"\nseed = -1\n[split]\nheld_out = 1\ntrain_before = 2026-01-01\n[train]\nmethod = \"lra\"\nepochs = 0\n[selection]\nkinds = [\"prose\", \"cod\", 3]\n[optimizer]\nlr = 1.0\n";
    let expected = [
        "1:8: name: may hold letters, digits, `-`, `_` and `.`, and must not begin with `.`",
        "2:8: seed: expected a whole number, 0 or more, found one that is negative or too large",
        "4:12: split.held_out: must be above 0 and below 1",
        "5:16: split.train_before: expected text in quotes, found a date without quotes",
        "7:10: train.method: must be one of `lora`, `full`, not `lra`",
        "8:10: train.epochs: must be above 0 and at most 1000",
        "10:19: selection.kinds[1]: must be one of `prose`, `markdown`, `html`, `code`, `json`, `table`, `chat`, `preference`, not `cod`",
        "10:26: selection.kinds[2]: expected text in quotes, found a number",
        "12:1: optimizer.lr: there is no such key: the keys in `optimizer` are `beta1`, `beta2`, `clip`, `decay`, `decay_shape`, `decayed`, `epsilon`, `final_share`, `learning_rate`, `schedule`, `state`, `warmup`, `weight_decay`",
    ];
    let found = shown(&parse_recipe(text).unwrap_err());
    assert_eq!(found, expected, "{found:#?}");

    let text = "[validation]\nkeep = \"first\"\npatience = 3\nkeep_best = 0\n[lora]\ntargets = [\"q proj\"]\nb_rate = 0\n[optimizer]\nschedule = \"wsd\"\ndecay = 0.99\ndecayed = [\"linear\"]\n";
    let expected = [
        "2:8: validation.keep: must be one of `last`, `best`, not `first`",
        "3:12: validation.patience: needs a validation side: set split.validation above 0",
        "4:13: validation.keep_best: must be from 1 to 32",
        "6:11: lora.targets: must hold the last part of linears' names, such as \"q_proj\"",
        "7:10: lora.b_rate: must be above 0 and at most 1000",
        "10:9: optimizer.decay: must leave room for optimizer.warmup: together they must be at most 1",
        "11:12: optimizer.decayed[0]: must be one of `linears`, `embeddings`, `norms`, `biases`, not `linear`",
    ];
    let found = shown(&parse_recipe(text).unwrap_err());
    assert_eq!(found, expected, "{found:#?}");
}

#[test]
fn a_sweep_is_read_with_its_recipe() {
    for (name, text) in SHIPPED {
        assert_eq!(parse_sweep(text).is_ok(), name == "sweep", "{name}");
        assert_eq!(parse_recipe(text).is_ok(), name != "sweep", "{name}");
    }
    let sweep = parse_sweep(SHIPPED[2].1).unwrap();
    assert_eq!(sweep.recipes().unwrap().len(), 6);
    // Keys may be tables in the table as well.
    let sweep = parse_sweep("[sweep]\norder = \"random\"\nruns = 2\nlora.rank = [4, 8, 0x10]\n").unwrap();
    let recipes = sweep.recipes().unwrap();
    assert!(recipes.len() == 2 && recipes[0].lora.rank != recipes[1].lora.rank);
    let one = shown(&parse_sweep("name = \"one\"\n").unwrap_err());
    assert_eq!(one, ["1:1: sweep: there is no table [sweep]: `moat run start` takes a recipe of one run"]);
    let several = shown(&parse_recipe("seed = 2\n[sweep]\n\"lora.rank\" = [8]\n").unwrap_err());
    assert_eq!(several, ["2:2: sweep: asks for several runs: `moat sweep start` takes it"]);
}

#[test]
fn faults_of_a_sweep_have_their_places() {
    let text = "seed = -1\n[sweep]\norder = \"all\"\nruns = 0\n\"lora.rnk\" = [8]\n\"lora.rank\" = [8, \"x\", 1.5]\n\
                \"optimizer.learning_rate\" = 1e-4\nlimit = [1]\n";
    let expected = [
        "1:8: seed: expected a whole number, 0 or more, found one that is negative or too large",
        "3:9: sweep.order: must be one of `grid`, `random`",
        "4:8: sweep.runs: must be at least 1",
        "5:1: sweep.lora.rnk: a recipe has no such key: did you mean `lora.rank`?",
        "6:19: sweep.lora.rank[1]: expected a whole number, 0 or more, found text",
        "6:24: sweep.lora.rank[2]: expected a whole number, 0 or more, found one with a fraction",
        "7:29: sweep.optimizer.learning_rate: expected a list of values",
        "8:1: sweep.limit: a recipe has no such key: write it whole and in quotes, such as \"lora.rank\"",
    ];
    let found = shown(&parse_sweep(text).unwrap_err());
    assert_eq!(found, expected, "{found:#?}");

    let text = "[sweep]\n\"lora.rank\" = [8, 0, 8]\n\"optimizer.schedule\" = [\"cosine\", \"wave\"]\n\"split.held_out\" = [0.1, 0.2]\n";
    let faults = parse_sweep(text).unwrap_err();
    let places: Vec<_> =
        faults.0.iter().map(|fault| (fault.line, fault.column, fault.key.as_str())).collect();
    let expected = [
        (2, 22, "sweep.lora.rank[2]"),
        (3, 35, "sweep.optimizer.schedule[1]"),
        (4, 1, "sweep.split.held_out"),
    ];
    assert_eq!(places, expected, "{faults}");
    let faults = parse_sweep("[sweep]\n\"lora.rank\" = [8, 0]\n").unwrap_err();
    assert_eq!(shown(&faults), ["2:19: sweep.lora.rank[1]: must be from 1 to 4096"]);
}

#[test]
fn the_machine_is_held_against_the_settings() {
    let folder = std::env::temp_dir().join(format!("moat-settings-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("repository/.git")).unwrap();
    std::fs::create_dir_all(folder.join("plain")).unwrap();
    std::fs::write(folder.join("file"), "").unwrap();
    let shown = folder.display();
    let text = format!(
        "[daemon]\nstate = \"{shown}/file/state\"\nruntime = \"{shown}/new/run\"\nengine = \"{shown}/file\"\n\
         [boundary]\nsources = [\"{shown}/plain\", \"{shown}/gone\"]\n\
         [[source]]\nname = \"a\"\npath = \"{shown}/repository\"\nkind = \"git\"\n\
         [[source]]\nname = \"b\"\nkind = \"git\"\npath = \"{shown}/plain\"\n\
         [[source]]\nname = \"c\"\npath = \"{shown}/gone\"\n"
    );
    let settings = parse(&text).unwrap();
    let faults = check_machine(&settings, &text, Path::new("/nowhere"));
    std::fs::remove_dir_all(&folder).unwrap();
    let list = text.lines().nth(5).unwrap().find(", \"").unwrap() + 3;
    let places: Vec<_> = faults.iter().map(|fault| (fault.line, fault.column, fault.key.as_str())).collect();
    let expected = [
        (2, 9, "daemon.state"),
        (4, 10, "daemon.engine"),
        (6, list, "boundary.sources[1]"),
        (14, 8, "source[1].path"),
        (17, 8, "source[2].path"),
    ];
    assert_eq!(places, expected, "{faults:#?}");
}

proptest! {
    #[test]
    fn no_text_is_too_broken_to_be_told_of(
        edits in proptest::collection::vec(
            (0_usize..20_000, 0_usize..30, "(\\PC|[\"'\\[\\]{}=.,#\n\t\r\u{0}]|\"\"\"|\\[\\[source\\]\\]\n|-1|é){0,4}"),
            1..6,
        )
    ) {
        let mut text = uncommented(WRITTEN_OUT);
        for (at, length, insert) in edits {
            let start = text.floor_char_boundary(at % text.len());
            let end = text.ceil_char_boundary((start + length).min(text.len()));
            text.replace_range(start..end, &insert);
        }
        let lines: Vec<&str> = text.split('\n').collect();
        for faults in [parse(&text).err(), parse_recipe(&text).err(), parse_sweep(&text).err()].into_iter().flatten() {
            prop_assert!(!faults.0.is_empty() && faults.0.is_sorted());
            for fault in faults.0 {
                let line = lines.get(fault.line - 1);
                let width = line.map(|line| line.chars().count());
                prop_assert!(width.is_some_and(|width| fault.column <= width + 1), "{fault}");
            }
        }
    }
}

#[test]
fn folders_for_sources_hold_nothing_of_moats_and_change_no_policy_while_there_are_none() {
    let faults = |sources: &str| {
        let text = format!("[daemon]\nstate = \"/var/lib/moat\"\n[boundary]\nsources = {sources}\n");
        parse(&text).map_or_else(|faults| shown(&faults), |_| Vec::new())
    };
    assert_eq!(faults("[\"/srv\", \"/var/library\"]"), Vec::<String>::new());
    for own in ["/", "/var", "/var/lib/moat", "/var/lib/moat/runs"] {
        let found = faults(&format!("[\"{own}\"]"));
        assert!(found[0].starts_with("4:12: boundary.sources[0]: must not hold, or lie in"), "{found:?}");
    }
    assert!(faults("[\"srv\"]")[0].contains("must be an absolute path"));
    assert!(!toml::to_string(&Settings::default().boundary).unwrap().contains("sources"));
}

#[test]
fn engines_come_from_a_program_or_from_sockets() {
    let place = |engine: &str| {
        let settings = parse(&format!("[daemon]\nengine = \"{engine}\"\n")).unwrap();
        settings.engine(Path::new("/programs"))
    };
    assert_eq!(place(""), EnginePlace::Program("/programs/moat-engine".into()));
    assert_eq!(place("/opt/engine"), EnginePlace::Program("/opt/engine".into()));
    assert_eq!(place("unix:/run/moat-engine"), EnginePlace::Sockets("/run/moat-engine".into()));
    let faults = parse("[daemon]\nengine = \"unix:run\"\n").unwrap_err().to_string();
    assert!(faults.contains("daemon.engine: must be an absolute path"), "{faults}");
}
