use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use moat_contracts::{Architecture, Digest, ExportJob, LoraRecipe, Method, Recipe, RunPart, Start, TrainJob};
use moat_tensor::{Folder, Lora, LoraShape, Model, StoredType, TensorError, Weights};
use serde_json::Value;

use crate::{TrainError, files};

/// What stands beside the weights of a base, in Hugging Face's layout; a base has some of them.
const COMPANIONS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
];

/// Writes the result of a run: `adapter/` in PEFT's format, or `model/` as a base of its own; plain, or sealed where the
/// job has a key. Returns the SHA-256 of the weights' plain bytes.
pub(crate) fn write_result(job: &TrainJob, model: &Model) -> Result<Digest, TrainError> {
    let output = Path::new(&job.output);
    let unfinished = output.join("unfinished");
    files::fresh_folder(&unfinished)?;
    let part = if model.adapter.is_some() { RunPart::Adapter } else { RunPart::Model };
    let folder = Folder::of_run(&unfinished, &job.run, part, job.key.as_ref());
    let weights = match &model.adapter {
        Some(adapter) => {
            folder.note_frozen(model.weights.frozen())?;
            adapter.save_to(&folder, &job.recipe.base)?
        }
        None => write_model(&folder, Path::new(&job.base), &model.weights)?,
    };
    files::publish(&unfinished, &output.join(part.word()))?;
    Ok(weights)
}

/// Adds an adapter to its base, opened where it was held in fewer bits while the adapter was trained, and writes the sum as a model folder of its own, in the type that the base is stored
/// in (bfloat16 where all of it is, 32-bit floats otherwise), sealed as the adapter is. The folder appears whole or not
/// at all.
///
/// # Errors
/// [`TrainError::Exists`], or what cannot be read or written.
pub fn merge(job: &ExportJob) -> Result<(), TrainError> {
    let (base, output) = (Path::new(&job.base), Path::new(&job.output));
    if output.exists() {
        return Err(TrainError::Exists(output.to_owned()));
    }
    let folder = Folder::of_run(Path::new(&job.adapter), &job.run, RunPart::Adapter, job.key.as_ref());
    let mut weights = Weights::load_frozen(&Folder::plain(base), folder.frozen()?)?;
    let adapter = Lora::load_from(weights.architecture(), &folder)?;
    adapter.merge(&mut weights)?;
    let mut name = output.as_os_str().to_owned();
    name.push(".unfinished");
    let unfinished = PathBuf::from(name);
    files::fresh_folder(&unfinished)?;
    write_model(&Folder::of_run(&unfinished, &job.run, RunPart::Model, job.key.as_ref()), base, &weights)?;
    files::publish(&unfinished, output)
}

/// Gives a folder that holds `config.json` and no weights fresh random ones, to be trained in full. The same seed
/// gives the same weights everywhere.
///
/// # Errors
/// [`TrainError::Exists`] if there are weights already, or what cannot be read or written.
pub fn initialise(folder: &Path, seed: u64, stored: StoredType) -> Result<(), TrainError> {
    let weights = folder.join("model.safetensors");
    if weights.exists() || folder.join("model.safetensors.index.json").exists() {
        return Err(TrainError::Exists(weights));
    }
    Ok(Weights::random(architecture(folder)?.0, seed).save(folder, stored)?)
}

/// The base's architecture and the SHA-256 of the file that says it.
pub(crate) fn architecture(base: &Path) -> Result<(Architecture, Digest), TrainError> {
    let path = base.join("config.json");
    let config = fs::read_to_string(&path).map_err(TrainError::read(&path))?;
    let architecture = Architecture::from_config(&config).map_err(TensorError::from)?;
    Ok((architecture, Digest::of(config.as_bytes())))
}

/// Refuses rows that are longer than the base has positions.
pub(crate) fn check_length(recipe: &Recipe, architecture: &Architecture) -> Result<(), TrainError> {
    let (asked, limit) = (recipe.train.sequence_length, architecture.max_position);
    if asked > limit { Err(TrainError::Length { asked, limit }) } else { Ok(()) }
}

/// The model that a run starts from: its base, with a fresh adapter or with what an earlier run made.
pub(crate) fn model(job: &TrainJob) -> Result<Model, TrainError> {
    let TrainJob { recipe, start, .. } = job;
    let folder =
        |start: &Start, part| Folder::of_run(Path::new(&start.folder), &start.run, part, start.key.as_ref());
    let refused = |start: &Start, reason| TrainError::Start { run: start.run.clone(), reason };
    let base = || Weights::load(Path::new(&job.base));
    match (recipe.train.method, start) {
        (Method::Lora, start) => {
            let LoraRecipe { rank, alpha, rank_stabilized, decomposed, ref targets, .. } = recipe.lora;
            let base = Folder::plain(Path::new(&job.base));
            let mut weights = Weights::load_frozen(&base, recipe.train.frozen)?;
            weights.set_precision(recipe.train.precision)?;
            let shape = LoraShape { rank, alpha, rank_stabilized, decomposed, targets };
            let mut adapter = Lora::shaped(weights.architecture(), shape, recipe.seed)?;
            adapter.measure(&weights)?;
            if let Some(start) = start {
                let earlier = Lora::load_from(weights.architecture(), &folder(start, RunPart::Adapter))?;
                if !earlier.is_like(&adapter) {
                    return Err(refused(
                        start,
                        "its adapter has another rank, scale or targets: take its [lora]",
                    ));
                }
                adapter = earlier;
            }
            Ok(Model { weights, adapter: Some(adapter) })
        }
        (Method::Full, None) => Ok(Model { weights: base()?, adapter: None }),
        (Method::Full, Some(start)) => {
            let weights = Weights::load_from(&folder(start, RunPart::Model))?;
            if *weights.architecture() != architecture(Path::new(&job.base))?.0 {
                return Err(refused(start, "its model is of another architecture than the base"));
            }
            Ok(Model { weights, adapter: None })
        }
    }
}

fn write_model(folder: &Folder, base: &Path, weights: &Weights) -> Result<Digest, TrainError> {
    let digest = weights.save_to(folder, stored_type(base)?)?;
    for name in COMPANIONS {
        let from = base.join(name);
        match File::open(&from) {
            Ok(mut file) => _ = folder.write(name, |to| io::copy(&mut file, to).map(drop))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(TrainError::read(&from)(error)),
        }
    }
    Ok(digest)
}

/// How a base stores its weights: bfloat16 where every tensor is, 32-bit floats otherwise.
fn stored_type(base: &Path) -> Result<StoredType, TrainError> {
    for path in weight_files(base)? {
        let header = header(&path)?;
        let tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
        if tensors.map(|(_, tensor)| &tensor["dtype"]).any(|stored| stored != "BF16") {
            return Ok(StoredType::F32);
        }
    }
    Ok(StoredType::Bf16)
}

/// `model.safetensors`, or the shards that its index lists.
fn weight_files(base: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let index = base.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec![base.join("model.safetensors")]);
    }
    let bytes = fs::read(&index).map_err(TrainError::read(&index))?;
    let refused = |reason: &str| TrainError::Base { path: index.clone(), reason: reason.to_owned() };
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| refused("it is no JSON"))?;
    let map = value["weight_map"].as_object().ok_or_else(|| refused("it holds no weight_map"))?;
    let mut names: Vec<&str> = map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.into_iter().map(|name| base.join(name)).collect())
}

/// A safetensors file's header: 8 bytes of length, little-endian, then that much JSON.
fn header(path: &Path) -> Result<serde_json::Map<String, Value>, TrainError> {
    let mut file = File::open(path).map_err(TrainError::read(path))?;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(TrainError::read(path))?;
    let mut json = Vec::new();
    file.take(u64::from_le_bytes(length)).read_to_end(&mut json).map_err(TrainError::read(path))?;
    serde_json::from_slice(&json).map_err(|_| TrainError::Base {
        path: path.to_owned(),
        reason: "its header is no JSON object".to_owned(),
    })
}
