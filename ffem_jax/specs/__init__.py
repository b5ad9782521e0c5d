"""What decides a result: frozen specs of a network, its data, its training; and the key they hash to."""
