//! A plan as an array job.

use std::fmt::Write as _;
use std::path::Path;

use crate::study::sweep::Plan;

/// What the script of an array job says beside the plan.
#[derive(Debug, Clone, Copy)]
pub struct Slurm<'a> {
    /// The program.
    pub program: &'a Path,
    /// The project's root, where data lie.
    pub root: &'a Path,
    /// The plan's file.
    pub plan: &'a Path,
    /// The folder of cells.
    pub runs: &'a Path,
    /// Most tasks at a time.
    pub limit: Option<usize>,
}

/// The script: one task of the array does one cell, and a script that is submitted again does what is left.
pub fn slurm(plan: &Plan, of: &Slurm<'_>) -> String {
    let limit = of.limit.map_or_else(String::new, |limit| format!("%{limit}"));
    let last = plan.tasks().len().saturating_sub(1);
    let [program, root, file, runs] =
        [of.program, of.root, of.plan, of.runs].map(|path| quoted(&path.to_string_lossy()));
    let mut s = String::from("#!/bin/sh\n");
    // Writing into a String can't fail.
    let _ = writeln!(s, "#SBATCH --job-name=mem2gen-{}", plan.name());
    let _ = writeln!(s, "#SBATCH --array=0-{last}{limit}");
    let _ = writeln!(
        s,
        "# Partition, time, memory and GPUs are the cluster's own: sbatch takes them as options."
    );
    let _ = writeln!(s, "export MEM2GEN_ROOT={root}");
    let _ = writeln!(
        s,
        "exec {program} sweep --plan {file} --runs {runs} --task \"$SLURM_ARRAY_TASK_ID\" --no-wait"
    );
    s
}

/// A word of the shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for text in ["plain", "two words", "it's", "$HOME `x` \"q\" \\", "a\nb"] {
            let said = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), text);
        }
    }
}
