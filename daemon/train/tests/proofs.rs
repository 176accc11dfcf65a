//! A run proves itself before its first step, refuses where it cannot, and tells what it would do without doing it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod common;

use std::fs;

use common::{Place, chat, examples, recipe, run, text};
use moat_contracts::{Claim, MemoryUse, Method, Progress, Proof, Recompute};
use moat_train::{Ended, TrainError, plan_memory, preview};

const CHAT: &str = r#"[{"role":"user","content":"Open?"},{"role":"assistant","content":"Shut."},{"role":"user","content":"Why?"},
    {"role":"assistant","content":"The night valve."}]"#;

/// Every set of proofs that a run told, in order.
fn told(reports: &[Progress]) -> Vec<Vec<Proof>> {
    let proven = reports.iter().filter_map(|report| match report {
        Progress::Proven { proofs } => Some(proofs.clone()),
        _ => None,
    });
    proven.collect()
}

fn claims(proofs: &[Proof]) -> Vec<Claim> {
    proofs.iter().map(|proof| proof.claim).collect()
}

#[test]
fn a_run_proves_itself_before_its_first_step_and_its_weights_at_the_end() {
    let place = Place::new();
    // Those of texts.
    let all: Vec<Claim> = Claim::ALL.into_iter().filter(|claim| *claim != Claim::Reference).collect();
    for (method, before, after) in
        [(Method::Lora, &all[..8], &all[8..]), (Method::Full, &all[..7], &all[9..])]
    {
        let corpus = place.corpus(method, &examples()).unwrap();
        let name = format!("{method:?}");
        let (ended, reports) = run(&place.job(&name, &recipe(method)), &corpus, None);
        assert!(matches!(ended, Ok(Ended::Trained(_))), "{ended:?}");
        let proofs = told(&reports);
        assert_eq!(claims(&proofs[0]), before);
        assert_eq!(proofs.get(1).map(|last| claims(last)).unwrap_or_default(), after);
        assert!(proofs.iter().flatten().all(|proof| proof.held && proof.remedy.is_empty()), "{proofs:#?}");
        let place_of = |wanted: fn(&Progress) -> bool| reports.iter().position(wanted).unwrap();
        let proven = place_of(|report| matches!(report, Progress::Proven { .. }));
        assert!(proven < place_of(|report| matches!(report, Progress::Step { .. })));
        assert!(place_of(|report| matches!(report, Progress::Surveyed { .. })) < proven);
    }
}

#[test]
fn a_run_that_goes_on_need_not_prove_itself_again() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let job = place.job("run", &recipe(Method::Lora));
    assert!(matches!(run(&job, &corpus, Some(2)).0, Ok(Ended::Stopped)));
    let (ended, reports) = run(&job, &corpus, None);
    assert!(matches!(ended, Ok(Ended::Trained(_))));
    assert_eq!(
        told(&reports).iter().map(|proofs| claims(proofs)).collect::<Vec<_>>(),
        [[Claim::MergeTrained]]
    );
}

#[test]
fn an_example_that_is_masked_whole_is_refused_by_its_record() {
    let place = Place::new();
    let (empty, mut all) = (text(""), examples());
    all.push(empty.clone());
    let corpus = place.corpus(Method::Lora, &all).unwrap();
    let (ended, reports) = run(&place.job("run", &recipe(Method::Lora)), &corpus, None);
    let error = ended.unwrap_err();
    assert!(
        matches!(&error, TrainError::Proof(reason) if reason.contains(&empty.record.to_string())),
        "{error}"
    );
    let proofs = told(&reports).concat();
    assert_eq!(claims(&proofs), [Claim::Masks, Claim::Turns]);
    assert!(!proofs[0].held && proofs[0].figure == 1.0 && proofs[1].held);
    assert!(!reports.iter().any(|report| matches!(report, Progress::Step { .. })));
    assert!(!place.path("run/adapter").exists());
}

/// The base's template, changed.
fn with_template(place: &Place, change: impl Fn(&str) -> String) {
    let path = place.path("base/tokenizer_config.json");
    let mut settings: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    settings["chat_template"] = change(settings["chat_template"].as_str().unwrap()).into();
    fs::write(&path, settings.to_string()).unwrap();
}

#[test]
fn a_template_that_is_not_prefix_preserving_is_refused() {
    let place = Place::new();
    // The prompt ends in a word that the trained text does not have there.
    with_template(&place, |template| {
        template.replace("'<|turn|>assistant\n' }}", "'<|turn|>assistant\nThink. ' }}")
    });
    let all = [examples(), vec![chat(CHAT)]].concat();
    let corpus = place.corpus(Method::Lora, &all).unwrap();
    let (ended, reports) = run(&place.job("run", &recipe(Method::Lora)), &corpus, None);
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("prefix-preserving") && error.contains("selection.kinds"), "{error}");
    let turns = told(&reports).concat().pop().unwrap();
    assert_eq!((turns.claim, turns.held, turns.figure), (Claim::Turns, false, 2.0), "{turns:?}");
    // Where there is nothing but chats, the intake says so.
    let error = place.corpus(Method::Lora, &[chat(CHAT)]).unwrap_err();
    assert!(matches!(error, TrainError::Example { .. }), "{error}");
}

#[test]
fn a_template_that_marks_its_answers_is_held_against_its_prompts_too() {
    let place = Place::new();
    let marked = "{% for m in messages %}{{ '<|turn|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}\
        {% generation %}{{ m.content + '<|done|>' }}{% endgeneration %}{{ '\\n' }}{% else %}{{ m.content + '<|done|>\\n' }}\
        {% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}";
    with_template(&place, |_| marked.to_owned());
    let proven = |name: &str| {
        let corpus = place.corpus(Method::Lora, &[chat(CHAT)]).unwrap();
        run(&place.job(name, &recipe(Method::Lora)), &corpus, None).0
    };
    assert!(proven("sound").is_ok());
    with_template(&place, |template| {
        template.replace("{{ '<|turn|>assistant\\n' }}{% endif %}", "{{ '<|turn|>model\\n' }}{% endif %}")
    });
    let error = proven("other").unwrap_err().to_string();
    assert!(error.contains("prefix-preserving"), "{error}");
}

#[test]
fn a_preview_tells_what_a_run_would_see_and_writes_nothing() {
    let place = Place::new();
    let corpus =
        place.corpus(Method::Lora, &[vec![chat(CHAT)], vec![text(&"valve ".repeat(60))]].concat()).unwrap();
    let recipe = recipe(Method::Lora);
    let job = place.job("run", &recipe);
    let seen = preview(&job, &corpus).unwrap();
    assert!(!place.path("run").exists());
    let survey = seen.survey;
    assert_eq!((survey.examples, survey.chats, survey.cut), (2, 1, 2), "{survey:?}");
    assert_eq!((survey.shortest, survey.median), (survey.shortest, survey.shortest));
    assert_eq!((survey.p95, survey.longest), (survey.longest, survey.longest));
    assert_eq!(survey.tokens, survey.shortest + survey.longest);
    assert!(survey.trained < survey.tokens && survey.trained_share() > 0.5);
    assert_eq!(claims(&seen.proofs), [Claim::Masks, Claim::Turns]);
    // The chat is shown: its turns as they stand, its answers with what ends them.
    assert_eq!(seen.record, chat(CHAT).record);
    let shown: Vec<(&str, bool)> =
        seen.example.iter().map(|part| (part.text.as_str(), part.trained)).collect();
    let expected = [
        ("<|turn|>user\nOpen?<|done|>\n<|turn|>assistant\n", false),
        ("Shut.<|done|>", true),
        ("\n<|turn|>user\nWhy?<|done|>\n<|turn|>assistant\n", false),
        ("The night valve.<|done|>", true),
        ("\n", false),
    ];
    assert_eq!(shown, expected);
    assert_eq!(seen.left, 0);
    // What the run itself tells is the same.
    let reports = run(&job, &corpus, None).1;
    let told = reports.iter().find_map(|report| match report {
        Progress::Surveyed { survey, .. } => Some(*survey),
        _ => None,
    });
    assert_eq!(told, Some(survey));
    let steps = reports.iter().filter(|report| matches!(report, Progress::Step { .. })).count() as u64;
    assert_eq!(survey.steps, steps);
}

#[test]
fn a_run_that_cannot_fit_says_what_to_change_and_recomputation_is_picked_where_it_helps() {
    let place = Place::new();
    let corpus = place.corpus(Method::Lora, &examples()).unwrap();
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 512, "num_hidden_layers": 24,
        "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 2048, "vocab_size": 1000,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true});
    let architecture = moat_contracts::Architecture::from_config(&config.to_string()).unwrap();
    let mut recipe = recipe(Method::Lora);
    let planned = |recipe: &_, available| plan_memory(&architecture, &corpus, recipe, (1, 2), available);
    let total = |recompute| {
        let mut recipe = recipe.clone();
        recipe.train.recompute = recompute;
        planned(&recipe, 0).unwrap().total()
    };
    let (kept, recomputed) = (total(Recompute::No), total(Recompute::Yes));
    assert!(recomputed < kept, "{recomputed} {kept}");
    let between = u64::midpoint(kept, recomputed);
    // Left alone, what is faster is taken.
    recipe.train.recompute = Recompute::Auto;
    assert!(!planned(&recipe, kept + (64 << 20)).unwrap().recompute);
    assert!(!planned(&recipe, 0).unwrap().recompute);
    assert!(planned(&recipe, between).unwrap().recompute);
    recipe.train.recompute = Recompute::No;
    let error = planned(&recipe, between).unwrap_err().to_string();
    for word in ["MiB", "train.recompute", "train.micro_batch", "moat run preview"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    recipe.train.method = Method::Full;
    let error = planned(&recipe, between).unwrap_err().to_string();
    assert!(error.contains("train.method"), "{error}");
    let plan = planned(&recipe, 0).unwrap();
    let part = |used| plan.parts.iter().find(|part| part.used == used).unwrap().bytes;
    assert_eq!(part(MemoryUse::Frozen), 0);
    assert_eq!(part(MemoryUse::Trained), 4 * architecture.parameters());
    assert_eq!(part(MemoryUse::Moments), 8 * architecture.parameters());
    // And the run itself asks.
    let mut job = place.job("run", &common::recipe(Method::Lora));
    job.memory = 1 << 20;
    assert!(matches!(run(&job, &corpus, None).0, Err(TrainError::Memory { .. })));
}
