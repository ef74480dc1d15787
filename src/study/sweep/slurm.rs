//! A plan as an array job of SLURM.

use std::fmt::Write as _;
use std::path::Path;

use crate::study::sweep::Plan;

/// Largest number of tasks of an array: SLURM's MaxArraySize is 1001 unless a cluster sets another one.
const LARGEST_ARRAY: usize = 1000;

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

/// The script. One task of the array does one cell, or several when there are more than
/// 1000. A script that is submitted again does the unfinished cells.
pub fn slurm(plan: &Plan, job: &Slurm<'_>) -> String {
    let limit = job.limit.map_or_else(String::new, |limit| format!("%{limit}"));
    let tasks = plan.tasks().len();
    let last = tasks.min(LARGEST_ARRAY).saturating_sub(1);
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
    let call = format!("{program} sweep --plan {file} --runs {runs} --no-wait --task");
    if tasks <= LARGEST_ARRAY {
        let _ = writeln!(s, "exec {call} \"$SLURM_ARRAY_TASK_ID\"");
        return s;
    }
    let _ = writeln!(
        s,
        "# {tasks} cells in {LARGEST_ARRAY} tasks, the largest array of SLURM's default MaxArraySize."
    );
    let _ = writeln!(s, "task=$SLURM_ARRAY_TASK_ID");
    let _ = writeln!(s, "failed=0");
    let _ = writeln!(s, "while [ \"$task\" -lt {tasks} ]; do");
    let _ = writeln!(s, "  {call} \"$task\" || failed=$?");
    let _ = writeln!(s, "  task=$((task + {LARGEST_ARRAY}))");
    let _ = writeln!(s, "done");
    let _ = writeln!(s, "exit \"$failed\"");
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
    fn large_plans_fit_the_largest_array_and_leave_no_cell_out() {
        let sizes: Vec<String> = (1..=1300).map(|k| k.to_string()).collect();
        let text = format!(
            r#"datasets = ["mnist"]
            size = 7
            sizes = [{}]
            network = [{{ name = "mlp8", arch = {{ kind = "mlp", width = 8, blocks = 1, time = 8, dropout = 0.0 }} }}]
            training = {{ steps = 100, batch = 16 }}
            sampling = {{ sampler = "ddim", steps = 10 }}"#,
            sizes.join(", ")
        );
        let plan = Plan::check("large", toml::from_str(&text).unwrap()).unwrap();
        assert_eq!(plan.tasks().len(), 1300);
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, "#!/bin/sh\nfor word; do last=$word; done\necho $last >>\"$CALLS\"\n")
            .unwrap();
        let job = Slurm {
            program: &program,
            root: folder.path(),
            plan: Path::new("plan.toml"),
            runs: Path::new("runs"),
            limit: Some(8),
        };
        let script = slurm(&plan, &job).replace(&format!("'{}'", program.display()), "sh \"$PROGRAM\"");
        assert!(script.contains("\n#SBATCH --array=0-999%8\n"), "{script}");
        let calls = folder.path().join("calls");
        for task in [0, 299, 300, 999] {
            let done = std::process::Command::new("sh")
                .args(["-c", &script])
                .env("PROGRAM", &program)
                .env("CALLS", &calls)
                .env("SLURM_ARRAY_TASK_ID", task.to_string())
                .status()
                .unwrap();
            assert!(done.success());
        }
        assert_eq!(std::fs::read_to_string(calls).unwrap(), "0\n1000\n299\n1299\n300\n999\n");
    }

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
