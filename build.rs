//! Embeds in the binary where libtorch was found at build time, and a relocatable place beside the binary.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/torch/lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
