// A line as one JSON object (RFC 8259). Names are ours or escaped like values; an object is always whole, for what is too
// long is cut inside its string.

import Addressing

extension LineText {
    /// Begins an object with its time, and its component when it has one.
    mutating func beginObject(at time: Timestamp, _ component: String?) {
        append("{\"time\":\"")
        append(time: time)
        append("\"")
        if let component { member("component", component, most: 64) }
    }

    /// Ends the object and the line.
    mutating func endObject() {
        append("}")
        end()
    }

    mutating func member(_ name: String, _ text: String, most: Int) {
        key(name)
        append("\"")
        append(escaping: text.utf8, most: most, as: .json)
        append("\"")
    }

    mutating func member(_ name: String, _ number: UInt64) {
        key(name)
        append(number)
    }

    mutating func member(_ name: String, _ number: Int) {
        key(name)
        if number < 0 { append("-") }
        append(UInt64(number.magnitude))
    }

    /// An address as text, `null` for none.
    mutating func member(_ name: String, _ endpoint: Endpoint?) {
        key(name)
        switch endpoint {
        case .ipv4?:
            append("\"")
            append(endpoint)
            append("\"")
        case .some(let other):
            append("\"")
            append(escaping: other.description.utf8, most: 128, as: .json)
            append("\"")
        case nil: append("null")
        }
    }

    /// Microseconds as a number of milliseconds, `null` for none.
    mutating func member(_ name: String, milliseconds microseconds: UInt64?) {
        key(name)
        if microseconds == nil { append("null") } else { append(milliseconds: microseconds) }
    }

    /// Every member has one before it: the time is the first.
    private mutating func key(_ name: String) {
        append(",\"")
        append(escaping: name.utf8, most: 128, as: .json)
        append("\":")
    }
}
