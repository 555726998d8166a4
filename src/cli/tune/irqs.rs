//! Which interrupt is which queue's.

use std::fs;

use byway_datapath::netdev;
use byway_datapath::nic::Nic;

use super::super::doctor::{Sysfs, read};

/// Each receive queue with its interrupt: as the driver tells the kernel, otherwise by the interrupts' names.
pub(super) fn of(nic: &Nic, sysfs: &Sysfs) -> Vec<(u32, u32)> {
    let told = netdev::queue_irqs(nic.link.index);
    if !told.is_empty() {
        return told;
    }
    // virtio's interrupts are those of the PCI device above.
    let folders = ["device/msi_irqs", "device/../msi_irqs"];
    let entries =
        folders.iter().filter_map(|folder| fs::read_dir(sysfs.path(folder)).ok()).flatten().flatten();
    let own: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    by_name(&read("/proc/interrupts"), &own, &nic.link.name)
}

/// Finds the queues' numbers in the names of the interrupts `own`: `eth1-TxRx-3`, `virtio0-input.3`, `mlx5_comp3@pci:…`.
/// The interface's name alone is the NIC's own interrupt, whatever it ends with.
fn by_name(table: &str, own: &[u32], interface: &str) -> Vec<(u32, u32)> {
    const OTHERS: [&str; 7] = ["config", "control", "async", "mgmnt", "misc", "output", "-tx-"];
    let mut found = Vec::new();
    for line in table.lines() {
        let Some((irq, rest)) = line.trim_start().split_once(':') else { continue };
        let Ok(irq) = irq.parse() else { continue };
        let Some(name) = rest.split_whitespace().last().filter(|_| own.contains(&irq)) else { continue };
        // What only sends, and what the NIC says of itself, is no queue's.
        if name == interface || OTHERS.iter().any(|word| name.contains(word)) {
            continue;
        }
        let name = name.split('@').next().unwrap_or(name);
        let digits = name.len() - name.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
        if let Ok(queue) = name[name.len() - digits..].parse() {
            found.push((queue, irq));
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_name_their_interrupts_in_their_own_ways() {
        let table = "           CPU0       CPU1\n\
             28:  0  0 PCI-MSIX-0000:00:01.0   0-edge      virtio0-config\n\
             29:  5  0 PCI-MSIX-0000:00:01.0   1-edge      virtio0-input.0\n\
             30:  5  0 PCI-MSIX-0000:00:01.0   2-edge      virtio0-output.0\n\
             31:  5  0 PCI-MSIX-0000:00:01.0   3-edge      virtio0-input.1\n\
             40:  5  0 PCI-MSIX-0000:01:00.0   0-edge      eth1\n\
             42:  5  0 PCI-MSIX-0000:01:00.0   2-edge      eth1-TxRx-1\n\
             41:  5  0 PCI-MSIX-0000:01:00.0   1-edge      eth1-TxRx-0\n\
             50:  5  0 PCI-MSIX-0000:02:00.0   1-edge      mlx5_comp0@pci:0000:02:00.0\n\
            NMI:  0  0  Non-maskable interrupts\n";
        assert_eq!(by_name(table, &[28, 29, 30, 31], "eth1"), [(0, 29), (1, 31)]);
        assert_eq!(by_name(table, &[50], "eth1"), [(0, 50)]);
        assert_eq!(by_name(table, &[], "eth1"), []);
    }

    /// igb's `eth1` is its own interrupt, and ends with a digit that is no queue's.
    #[test]
    fn an_interrupt_called_as_the_interface_is_no_queues() {
        let table = "40: 5 0 PCI-MSIX 0-edge eth1\n41: 5 0 PCI-MSIX 1-edge eth1-TxRx-0\n";
        assert_eq!(by_name(table, &[40, 41], "eth1"), [(0, 41)]);
    }
}
