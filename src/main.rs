//! Parse, run the command, give its exit code. Must never know: what a command does. Next: `cli`.

fn main() -> std::process::ExitCode {
    tidegate::cli::main(std::env::args_os())
}
