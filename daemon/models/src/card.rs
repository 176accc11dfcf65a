use std::fmt::Write as _;

use moat_contracts::{DatasetSource, Frozen, Interval, Method, Precision, SourceEdge, SplitCounts};

use crate::Export;

/// The model card: what a person must know before using the weights. Counts and hashes, no content.
#[must_use]
pub fn card(facts: &Export<'_>) -> String {
    let Export { base, recipe, dataset, edge, outcome, .. } = facts;
    let run = facts.files.run;
    let DatasetSource { train, validation, held_out } = totals(facts);
    let validation =
        if validation.is_empty() { String::new() } else { counts("chosen by", validation) + "\n" };
    let what = match recipe.train.method {
        Method::Lora => format!(
            "`adapter/` is a {}low-rank adapter (rank {}, alpha {}) in PEFT's format, `model/` the base with the adapter \
             added to its weights.",
            if recipe.lora.decomposed { "decomposed (DoRA) " } else { "" },
            recipe.lora.rank,
            recipe.lora.alpha
        ),
        Method::Full => "`model/` is the base with all its weights trained further.".to_owned(),
    };
    let what = what + &precision(facts);
    let verdict = if let Some(preference) = &edge.preference {
        let (share, pairs) = (preference.accuracy * 100.0, preference.pairs);
        let word = if edge.has_edge { "" } else { "**This run shows no edge**: " };
        format!(
            "{word}On {pairs} held-back preferences it raises the chosen answer above the rejected one, against its base, \
             in {share:.1}%; a half is chance."
        )
    } else if edge.has_edge {
        format!(
            "On held-back records it needs fewer bits than its base: the whole {} lies above 0.",
            interval(facts)
        )
    } else {
        format!(
            "**This run shows no edge**: the {} of what it saves on held-back records does not lie above 0. Do not \
             expect it to know the company's data better than its base.",
            interval(facts)
        )
    };
    let mut text = format!(
        "---\nlibrary_name: transformers\nbase_model: {base_name}\n---\n\n# {run}\n\n\
         {base_name} ({family}, {parameters} parameters), tuned on private data inside the company by Moat {version}. \
         {what} Weights and data belong to the company that made them; the base's own licence goes on to apply.\n\n\
         {verdict}\n\n\
         ## The edge\n\n\
         Bits per byte of UTF-8 on {held} held-back records, which were never trained on, nor were near-duplicates of \
         them: lower is better. The interval comes from {resamples} paired bootstrap resamples over records.\n\n\
         | source | records | base | tuned | saved | {confidence} interval |\n|---|---|---|---|---|---|\n",
        base_name = base.name,
        family = base.family,
        parameters = base.parameters,
        version = facts.version,
        held = edge.all.records,
        resamples = edge.resamples,
        confidence = percent(edge.confidence),
    );
    // Writing to a String cannot fail, here and below.
    let _ = writeln!(text, "{}", row("all", &edge.all));
    for (name, source) in &edge.sources {
        let _ = writeln!(text, "{}", row(name, source));
    }
    let forgetting = &edge.forgetting;
    let _ = write!(
        text,
        "\n## Forgetting\n\n\
         On {}, text unlike the company's: {:.4} bits per byte under the base, {:.4} tuned, {:+.4} lost \
         ({} interval {:+.4} to {:+.4}; above 0 is forgetting).\n\n\
         ## How it was made\n\n\
         | | records | tokens | bytes |\n|---|---|---|---|\n{}\n{validation}{}\n\n\
         Dataset `{}`, recipe `{}`, base `{}`, curation rules `{}`. Training took {} steps over {} tokens; the loss \
         went from {:.4} to {:.4} nats a token. `lineage.json` holds the whole recipe and every hash, \
         `dataset-manifest` every record's id; neither holds any text.\n\n",
        forgetting.text,
        forgetting.base,
        forgetting.tuned,
        forgetting.lost.value,
        percent(edge.confidence),
        forgetting.lost.low,
        forgetting.lost.high,
        counts("trained on", train),
        counts("held back", held_out),
        dataset.id,
        recipe.hash(),
        base.hash,
        dataset.rules,
        outcome.steps,
        outcome.tokens,
        outcome.first_loss,
        outcome.last_loss,
    );
    if let Some(first) = facts.earlier.first() {
        let datasets: Vec<_> = facts.earlier.iter().map(|earlier| format!("`{}`", earlier.dataset)).collect();
        let _ = write!(
            text,
            "It went on from the weights of run {}: what that learnt from dataset {} is in these weights too. Held-back \
             records that were trained on there are not in the edge.\n\n",
            first.run,
            datasets.join(", and before it "),
        );
    }
    text.push_str(&usage(facts));
    text.push_str(
        "## Limits\n\n\
         - It has learnt from private records and can give parts of them back word for word: give it only to people \
         who may read those records.\n\
         - Redaction is by patterns and misses what no pattern describes.\n\
         - Fewer bits per byte mean that the data became more predictable to it, not that its answers are true.\n\
         - It was measured on records like those it was trained on; elsewhere only the forgetting check speaks.\n\n\
         `sha256sum -c SHA256SUMS` shows that nothing was changed since it was written.\n",
    );
    text
}

fn usage(facts: &Export<'_>) -> String {
    let mut text =
        "## Loading it\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
                    tokenizer = AutoTokenizer.from_pretrained(\"model\")\n\
                    model = AutoModelForCausalLM.from_pretrained(\"model\")\n```\n\n"
            .to_owned();
    if facts.recipe.train.method == Method::Lora {
        let _ = write!(
            text,
            "Or the adapter on its base, whose folder you name:\n\n```python\nfrom peft import PeftModel\n\n\
             base = AutoModelForCausalLM.from_pretrained(\"path/to/{}\")\n\
             model = PeftModel.from_pretrained(base, \"adapter\")\n```\n\n",
            facts.base.name
        );
    }
    text
}

/// On which numbers an adapter was trained, where they are not the base's own.
fn precision(facts: &Export<'_>) -> String {
    let held = match facts.recipe.train.frozen {
        Frozen::F32 => return String::new(),
        Frozen::Bf16 => "bfloat16",
        Frozen::Int8 => "8 bits (64 by 64 numbers to a scale)",
        Frozen::Nf4 => "4 bits (NF4 in blocks of 64, as bitsandbytes rounds them)",
    };
    let products = match facts.recipe.train.precision {
        Precision::F32 => "",
        Precision::Int8 => {
            " While it was trained, products with these were taken in 8-bit integers; it was measured in 32-bit floats."
        }
    };
    format!(
        " It was trained and measured on the base with the linears of its blocks rounded to {held}.{products} `model/` holds these \
         rounded numbers with the adapter added in 32-bit floats, rounded once more to the type that the base is stored \
         in; on the base as released `adapter/` gives slightly other answers than were measured."
    )
}

fn totals(facts: &Export<'_>) -> DatasetSource {
    let mut total = DatasetSource::default();
    for source in facts.dataset.sources.values() {
        total.train.join(&source.train);
        total.validation.join(&source.validation);
        total.held_out.join(&source.held_out);
    }
    total
}

fn counts(name: &str, counts: SplitCounts) -> String {
    format!("| {name} | {} | {} | {} |", counts.records, counts.tokens, counts.bytes)
}

fn row(name: &str, edge: &SourceEdge) -> String {
    let (saved, interval) = match edge.edge {
        Some(Interval { value, low, high }) => (format!("{value:+.4}"), format!("{low:+.4} to {high:+.4}")),
        None => (format!("{:+.4}", edge.base - edge.tuned), "too few records".to_owned()),
    };
    let name = name.replace('|', "\\|");
    format!("| {name} | {} | {:.4} | {:.4} | {saved} | {interval} |", edge.records, edge.base, edge.tuned)
}

fn interval(facts: &Export<'_>) -> String {
    format!("{} interval", percent(facts.edge.confidence))
}

fn percent(share: f64) -> String {
    format!("{:.4}", share * 100.0).trim_end_matches('0').trim_end_matches('.').to_owned() + " %"
}
