//! A plan as an array job of SLURM.

use std::fmt::Write as _;
use std::path::Path;

use crate::study::sweep::Plan;

/// The paths and the limit in the script of an array job.
#[derive(Debug, Clone, Copy)]
pub struct Slurm<'a> {
    /// The program.
    pub program: &'a Path,
    /// The project's root.
    pub root: &'a Path,
    /// The plan's file.
    pub plan: &'a Path,
    /// The folder of cells.
    pub runs: &'a Path,
    /// Number of tasks that run at the same time, at most.
    pub limit: Option<usize>,
}

/// The script. One task of the array does one cell. A script that is submitted again does the unfinished cells.
pub fn slurm(plan: &Plan, job: &Slurm<'_>) -> String {
    let limit = job.limit.map_or_else(String::new, |limit| format!("%{limit}"));
    let last = plan.tasks().len().saturating_sub(1);
    let [program, root, file, runs] =
        [job.program, job.root, job.plan, job.runs].map(|path| quoted(&path.to_string_lossy()));
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

/// The text as one quoted word of the shell.
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
