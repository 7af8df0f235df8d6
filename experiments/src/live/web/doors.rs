//! All of the service's addresses at a node that carries sessions on, of which some come here.

use std::collections::HashMap;
use std::net::{SocketAddrV4, TcpListener};
use std::sync::{Arc, Mutex};

use backdoor_host::net::NetError;

use super::door::{Door, DoorError, Stay};
use crate::live::two_locks::lock;

/// A door for each address.
pub(super) struct Doors(Vec<Arc<Door>>);

impl Doors {
    /// For these addresses on `link`. New clients are `opened` to at the end, at each address that has come here.
    pub(super) fn new(
        addresses: &[SocketAddrV4],
        link: &str,
        opened: impl Fn(TcpListener) + Clone + Send + Sync + 'static,
    ) -> Result<Self, NetError> {
        let doors = addresses.iter().map(|address| Door::new(*address, link, opened.clone()).map(Arc::new));
        doors.collect::<Result<_, _>>().map(Doors)
    }

    /// A batch of sessions is to be made ready.
    pub(super) fn visit(&self) -> Visit<'_> {
        Visit { doors: self, stays: Mutex::default() }
    }
}

/// A batch's stays at the addresses of its sessions. Dropped, it leaves them.
pub(super) struct Visit<'a> {
    doors: &'a Doors,
    stays: Mutex<Vec<Stay>>,
}

impl Visit<'_> {
    /// Sees to it that connections to `address` can be made anew.
    pub(super) fn enter(&self, address: SocketAddrV4) -> Result<(), DoorError> {
        let mut stays = lock(&self.stays);
        if stays.iter().any(|stay| stay.address() == address) {
            return Ok(());
        }
        let door = self.doors.0.iter().find(|door| door.address() == address).ok_or(DoorError::Unknown(address))?;
        stays.push(door.enter()?);
        Ok(())
    }

    /// Which addresses can't be had now, and why.
    pub(super) fn obstacles(&self) -> HashMap<SocketAddrV4, String> {
        let stays = lock(&self.stays);
        stays.iter().filter_map(|stay| Some((stay.address(), stay.check().err()?.to_string()))).collect()
    }

    /// Sessions at these addresses are this node's: tells the neighbours.
    pub(super) fn announce(&self, is_here: impl Fn(SocketAddrV4) -> bool) -> Result<(), NetError> {
        let stays = lock(&self.stays);
        stays.iter().filter(|stay| is_here(stay.address())).try_for_each(Stay::announce)
    }

    /// The batch is done: says of each address whether all of its sessions are here.
    pub(super) fn came(&self, all_are_here: impl Fn(SocketAddrV4) -> bool) {
        lock(&self.stays).iter().for_each(|stay| stay.came(all_are_here(stay.address())));
    }
}
