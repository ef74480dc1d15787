//! The program: parse, check, call, print.

mod cli;

fn main() {
    cli::main()
}
