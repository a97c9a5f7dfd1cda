//! Compiles `proto/` without protoc and keeps the descriptor set for reflection, JSON and the REST face.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files: Vec<PathBuf> = std::fs::read_dir("proto/tidegate/v1")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>, std::io::Error>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "proto"))
        .collect();
    files.sort();
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    // As protox encodes it: prost's own types would lose the options of the methods, which say where REST has them.
    std::fs::write(out.join("tidegate.v1.bin"), compiler.encode_file_descriptor_set())?;
    // Without comments, which are three quarters of it: what the daemon holds in memory all the time.
    let mut bare = protox::Compiler::new(["proto"])?;
    bare.include_imports(true).include_source_info(false).open_files(&files)?;
    std::fs::write(out.join("tidegate.v1.bare.bin"), bare.encode_file_descriptor_set())?;
    if !files.is_empty() {
        // Maps are sorted, so that labels move into the model as they are.
        tonic_prost_build::configure().btree_map(".").compile_fds(compiler.file_descriptor_set())?;
    }
    Ok(())
}
