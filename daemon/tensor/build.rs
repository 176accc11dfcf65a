//! Compiles the GPU's kernels where a feature asks for them: for GPUs by NVIDIA's compiler, for their emulation by the
//! machine's own.

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-changed=src/cuda/kernels");
    #[cfg(feature = "cuda-on-cpu")]
    emulation()?;
    #[cfg(feature = "cuda")]
    fatbin()?;
    Ok(())
}

#[cfg(feature = "cuda-on-cpu")]
fn emulation() -> Result<(), String> {
    let mut build = cc::Build::new();
    // Jumps between stacks are what fibers are made of: the fortified longjmp takes them for a fault.
    build.cpp(true).std("c++17").opt_level(2).flag("-U_FORTIFY_SOURCE").flag("-ffp-contract=off");
    build
        .file("src/cuda/kernels/emulation.cpp")
        .try_compile("moat_emulation")
        .map_err(|error| error.to_string())
}

/// One file for every GPU from compute capability 8.0 on: machine code for 8.x and 9.x, and PTX that the driver of a later
/// one compiles itself.
#[cfg(feature = "cuda")]
fn fatbin() -> Result<(), String> {
    use std::path::PathBuf;
    use std::process::Command;

    for name in ["NVCC", "CUDA_HOME"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let home = std::env::var_os("CUDA_HOME").map(|home| PathBuf::from(home).join("bin/nvcc"));
    let compiler = std::env::var_os("NVCC").map(PathBuf::from).or(home).unwrap_or_else(|| "nvcc".into());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo gave no OUT_DIR")?);
    let status = Command::new(&compiler)
        .args(["-std=c++17", "-O3", "-fatbin", "--no-compress", "--threads", "0"])
        .args(["-gencode", "arch=compute_80,code=sm_80", "-gencode", "arch=compute_90,code=sm_90"])
        .args(["-gencode", "arch=compute_90,code=compute_90"])
        .arg("-o")
        .arg(out.join("kernels.fatbin"))
        .arg("src/cuda/kernels/all.cu")
        .status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} ended with {status}", compiler.display())),
        Err(error) => Err(format!(
            "NVIDIA's compiler {} cannot be started ({error}): scripts/build-cuda fetches one",
            compiler.display()
        )),
    }
}
