// Certificates and keys that change while the worker serves: after HUP, and when ticket keys are renewed.

import Config
import Control
import Linux
import Logging
import TLS

extension Worker {
    /// New connections get what is in the arbiter's parcel, certificates too or ticket keys alone; if that cannot be, what
    /// they got before.
    func renewTLS(_ command: Numbered<Command>, _ parcel: consuming Descriptor?) {
        let number = command.number
        guard let settings = settings.tls, let parcel else {
            control.send(.tlsNotRenewed("nothing came"), number: number)
            return
        }
        do throws(InheritanceError) {
            var material = try TLSParcel(parcel).material()
            defer { material.wipe() }
            do throws(TLSFailure) {
                if command.message == .renewTicketKeys, let listenerTLS {
                    try listenerTLS.renew(ticketKeys: material.ticketKeys)
                } else {
                    listenerTLS = try ListenerTLS(material, settings)
                }
                control.send(.tlsRenewed, number: number)
            } catch {
                control.send(.tlsNotRenewed("\(error)"), number: number)
            }
        } catch {
            control.send(.tlsNotRenewed("\(error)"), number: number)
        }
    }
}
