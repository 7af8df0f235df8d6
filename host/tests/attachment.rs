//! A monitor's side of an agent's life: what it sees, and what it is told when there is nothing to see.

mod common;

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use backdoor_core::Nanos;
use backdoor_core::hook_table::{HookTable, Purpose};
use backdoor_core::progress_box::{EntityState, FailureLevel};
use backdoor_core::transport::Rights;
use backdoor_host::agent::{Agent, AgentConfig, AgentError, Gauge};
use backdoor_host::app::Node;
use backdoor_host::attach::{AttachError, attach_local};
use backdoor_host::protocol::{CLAIMS, PROGRESS_BOX, STATE_BOXES};
use backdoor_host::wire::ConnectionError;
use common::{Monitor, RELAXED, TestNode, socket_of_parent, wait_for};

fn connection_error(path: &Path) -> ConnectionError {
    match attach_local(path) {
        Err(AttachError::Connection(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_hook_table_names_what_there_is() {
    let test = TestNode::start(|_| {});
    let mut monitor = test.attach();
    let key = monitor.0.hook_table();
    let table = HookTable::read(&monitor.read_all(key)).unwrap();
    assert_eq!(table.incarnation, monitor.0.incarnation());
    assert_eq!(table.incarnation, test.agent.as_ref().unwrap().incarnation());
    let found = |purpose| table.find(purpose).map(|hook| (hook.memory.key, hook.rights));
    assert_eq!(found(Purpose::Monitoring), Some((PROGRESS_BOX, Rights::READ)));
    assert_eq!(found(Purpose::Recovery), Some((STATE_BOXES, Rights::READ)));
    assert_eq!(found(Purpose::Claim), Some((CLAIMS, Rights::READ | Rights::COMPARE_SWAP)));
    for hook in &table.hooks {
        monitor.read(hook.memory.key, hook.memory.offset, hook.memory.words).unwrap();
    }
}

#[test]
fn the_system_and_every_cpu_advance() {
    let test = TestNode::start(|_| {});
    let mut monitor = test.attach();
    let own = |monitor: &mut Monitor| monitor.entities();
    let before = own(&mut monitor);
    let names: Vec<_> = before.iter().map(|entity| entity.record.name.as_str().to_owned()).collect();
    assert_eq!(names[..2], ["os", "agent"]);
    assert!(names[2..].iter().all(|name| name.starts_with("os/cpu")) && names.len() > 2, "{names:?}");
    for entity in &before {
        let level = if entity.record.name.as_str() == "agent" { FailureLevel::Application } else { FailureLevel::Os };
        assert_eq!(entity.record.level, level);
    }
    wait_for("every counter advances by ten", || {
        own(&mut monitor).iter().zip(&before).all(|(now, then)| now.liveness.count() >= then.liveness.count() + 10)
    });
    wait_for("gauges are filled", || {
        let gauges = monitor.gauges();
        let set = |gauge: Gauge| gauges[gauge.index()] > 0;
        set(Gauge::UpdatedNs) && set(Gauge::ContextSwitches) && set(Gauge::AvailableMemoryBytes)
    });
}

#[test]
fn a_stopped_agent_is_gone_and_its_memory_stays() {
    let mut test = TestNode::start(|_| {});
    let mut monitor = test.attach();
    let node = Node::connect(test.socket()).unwrap();
    let app = node.register("kv", RELAXED).unwrap();
    let mut session = app.open_session("client", RELAXED, 100).unwrap();
    session.commit(b"before").unwrap();
    assert!(!monitor.0.gone() && node.agent_alive());

    drop(test.agent.take());
    // Not at once: until a process that another test starts has become its program, it holds copies of all sockets.
    wait_for("the agent is gone", || monitor.0.gone() && !node.agent_alive());
    assert!(!test.socket().exists(), "the socket is removed");
    assert_eq!(std::fs::read_dir(test.socket().parent().unwrap()).unwrap().count(), 0, "and the lock with it");
    assert_eq!(monitor.find("os").unwrap().liveness.state(), EntityState::Departed);
    app.progress().advance();
    assert_eq!(session.commit(b"after"), Ok(2));
    let entity = monitor.find("client").unwrap();
    assert_eq!(monitor.state(&entity), Ok((2, b"after".to_vec())), "service and monitor go on without the agent");
    assert!(app.open_session("new", RELAXED, 100).is_err());

    test.agent = Some(Agent::start(test.config.clone()).unwrap());
    assert!(monitor.0.gone(), "another agent is not this one");
    let mut anew = test.attach();
    assert_ne!(anew.0.incarnation(), monitor.0.incarnation());
    assert_eq!(anew.find("kv"), None);
}

#[test]
#[ignore = "the agent that is killed"]
fn an_agent_for_ever() {
    let Some(socket) = socket_of_parent() else { return };
    let agent = Agent::start(AgentConfig::at(socket)).unwrap();
    while agent.is_running() {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn a_killed_agent_leaves_a_stale_socket_that_the_next_one_replaces() {
    let mut test = TestNode::start(|_| {});
    drop(test.agent.take());
    let mut killed = test.spawn("an_agent_for_ever");
    wait_for("it listens", || attach_local(test.socket()).is_ok());
    let mut monitor = Monitor(attach_local(test.socket()).unwrap());
    let error = Agent::start(test.config.clone()).unwrap_err();
    assert!(matches!(error, AgentError::AlreadyRunning { .. }), "{error}");
    assert!(attach_local(test.socket()).is_ok(), "the attempt did the living agent no harm");

    killed.kill();
    wait_for("the agent is gone", || monitor.0.gone());
    let frozen = monitor.entities();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(monitor.entities(), frozen, "its memory stays readable");
    assert!(test.socket().exists());
    let error = connection_error(&test.socket());
    assert!(matches!(error, ConnectionError::Stale { .. }), "{error}");

    test.agent = Some(Agent::start(test.config.clone()).unwrap());
    assert!(attach_local(test.socket()).is_ok());
}

#[test]
fn only_this_user_may_connect() {
    let test = TestNode::start(|_| {});
    let metadata = std::fs::metadata(test.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn every_way_of_not_being_there_has_its_own_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.sock");
    let error = connection_error(&path);
    assert!(matches!(error, ConnectionError::Missing { .. }), "{error}");

    std::fs::write(&path, "precious").unwrap();
    let error = connection_error(&path);
    assert!(matches!(error, ConnectionError::NotAnAgent { .. }), "{error}");
    let error = Agent::start(AgentConfig::at(&path)).unwrap_err();
    assert!(matches!(error, AgentError::InTheWay { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious", "a file in the way is left alone");

    std::fs::remove_file(&path).unwrap();
    let _stream = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let error = connection_error(&path);
    assert!(matches!(error, ConnectionError::NotAnAgent { .. }), "{error}");
    let error = Agent::start(AgentConfig::at(&path)).unwrap_err();
    assert!(matches!(error, AgentError::AlreadyRunning { .. }), "another program's socket is left alone: {error}");
}

#[test]
fn impossible_settings_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let changes: [fn(&mut AgentConfig); 6] = [
        |config| config.capacity = 2,
        |config| config.tick = Nanos::ZERO,
        |config| config.os_deadline = config.tick,
        |config| config.claims = 0,
        |config| config.state_words = 0,
        |config| config.state_words = usize::MAX / 16,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut config = AgentConfig::at(directory.path().join("node.sock"));
        change(&mut config);
        assert!(Agent::start(config.clone()).is_err(), "change {index}");
        assert!(!config.socket.exists(), "change {index} left a socket");
    }
}
