// What the arbiter decides about USR2: as the older one, which starts a successor, and as the newer one.

import Control
import Linux

extension ArbiterCore {
    mutating func startUpgrade() {
        guard phase == .running else { return say(.ignored(.user2)) }
        if let upgrade { return say(.upgradePending(pid: upgrade.pid)) }
        if let origin { return say(.ownUpgradeOpen(origin: origin)) }
        upgrade = Upgrade()
        actions.append(.spawnSuccessor(generation: generation + 1, lastSerial: Serial(lastSerial)))
        lastSerial += Self.serialsForSuccessor
    }

    mutating func handle(_ report: Report, ofSuccessor pid: Int32) {
        // However old that upgrade is.
        if case .tellOthers(let line) = report { return tellEverybody(line, from: .successor(pid: pid)) }
        guard upgrade?.pid == pid else { return }
        switch report {
        case .ready:
            upgrade?.isReady = true
            say(.successorReady(pid: pid))
            // It takes clients from the same listeners.
            for worker in workers where worker.stage != .leaving {
                actions.append(.tell(worker.serial, .shareListeners))
            }
        case .bootFailed(let reason): upgrade?.bootFailure = reason
        case .draining: endUpgrade(.upgradeBackedOut(pid: pid))
        case .reloaded, .reloadFailed, .logsReopened, .logRefused, .tellOthers, .tlsRenewed, .tlsNotRenewed: break
        }
    }

    mutating func loseSuccessor(_ pid: Int32, _ status: ExitStatus) {
        guard let upgrade, upgrade.pid == pid, !isHandedOver else { return say(.successorLeft(pid: pid, status)) }
        let reason = upgrade.bootFailure ?? "it \(status)"
        endUpgrade(upgrade.isReady ? .successorDied(pid: pid, status) : .upgradeFailed(reason))
    }

    mutating func endUpgrade(_ note: Note) {
        guard upgrade != nil, !isHandedOver else { return }
        upgrade = nil
        actions.append(.takeBack)
        say(note)
    }

    mutating func handOver() {
        guard let upgrade, let pid = upgrade.pid else { return }
        say(.handingOver(pid: pid, isReady: upgrade.isReady))
        actions.append(.handOver)
        isHandedOver = true
    }

    /// The successor of the upgrade that is open, or was when we were told to end.
    var successor: Int32? { upgrade?.pid }
}
