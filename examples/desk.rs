use mem2gen::{notebook::Run, project::Layout, study};
fn main() {
    let p = std::env::args().nth(1).unwrap();
    let layout = Layout::find();
    for n in ["mnist", "fashion-mnist"] {
        let e = mem2gen::data::find(n).unwrap();
        mem2gen::data::fetch::fetch(&layout, e, None, &mut |_| {}).unwrap();
    }
    let run = Run::new("desk", &p, layout, false).unwrap();
    let t = std::time::Instant::now();
    let l = study::toy_ladder(&run).unwrap();
    println!("ladder {} {:?}", l.len(), t.elapsed());
    let c = study::memory_load(&run).unwrap();
    println!("load {} {:?}", c.len(), t.elapsed());
    mem2gen::figure::load::phase_diagram(&c)
        .unwrap()
        .save(std::path::Path::new("/tmp/figs"), "phase")
        .unwrap();
    mem2gen::figure::load::recall(&c).unwrap().save(std::path::Path::new("/tmp/figs"), "recall").unwrap();
    mem2gen::figure::toy::attractor_ladder(&l, 0.50155)
        .unwrap()
        .save(std::path::Path::new("/tmp/figs"), "ladder")
        .unwrap();
}
