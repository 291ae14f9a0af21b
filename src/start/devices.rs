//! The devices that the model is put on: a whole one on each.

use crate::model::{self, DeviceChoice, Place};
use crate::settings::ModelSettings;

use super::memory;

/// Where the replicas of the model go, one for each device that was named.
pub(super) struct Devices {
    places: Vec<Place>,
}

impl Devices {
    /// The places that `--device` means on this machine. Errors are one line for whoever starts the server.
    pub(super) fn find(settings: &ModelSettings) -> Result<Devices, String> {
        let devices = &settings.devices;
        if devices.len() > 1 && devices.contains(&DeviceChoice::Auto) {
            return Err("--device: auto finds one device and stands alone; name each, as in cuda:0,cuda:1".to_owned());
        }
        let find = |device: &DeviceChoice| model::find_place(*device, &settings.cuda_library);
        let places: Vec<Place> = devices.iter().map(find).collect::<Result<_, _>>()?;
        let name = |place: &Place| place.to_string();
        for (index, place) in places.iter().enumerate().filter(|(_, place)| **place != Place::Cpu) {
            if places[..index].iter().map(name).any(|other| other == name(place)) {
                return Err(format!("--device names {place} twice; a GPU holds the model once"));
            }
        }
        Ok(Devices { places })
    }

    /// The choice that means each place.
    pub(super) fn choices(&self) -> impl Iterator<Item = DeviceChoice> {
        self.places.iter().map(|place| match place {
            Place::Cpu => DeviceChoice::Cpu,
            Place::Cuda { index, .. } => DeviceChoice::Cuda(*index),
        })
    }

    /// "cuda:0,cuda:1"
    pub(super) fn name(&self) -> String {
        self.places.iter().map(Place::to_string).collect::<Vec<_>>().join(",")
    }

    pub(super) fn are_cpu(&self) -> bool {
        self.places.contains(&Place::Cpu)
    }

    /// Bytes that each replica may take where the least is free: those on the CPU share its memory. `None` where nobody says.
    pub(super) fn free_each(&self) -> Option<u64> {
        let on_cpu = self.places.iter().filter(|place| **place == Place::Cpu).count() as u64;
        let free = |place: &Place| match place {
            Place::Cpu => memory::available().map(|bytes| memory::without_reserve(bytes) / on_cpu),
            Place::Cuda { free_bytes, .. } => free_bytes.map(memory::without_reserve),
        };
        self.places.iter().filter_map(free).min()
    }
}
